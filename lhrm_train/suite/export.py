"""Test prompts as JSON lines, the shape the load test reads."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from lhrm_train.suite import mix

SEED = 50_001


def write_prompts(path: Path, count: int, kind: str | None = None) -> None:
    """Write `count` test items of the workload, or of one `kind`, with their reference answers.

    Raises ValueError where the kind has no more different questions.
    """
    weights = mix.WORKLOAD if kind is None else {kind: 1.0}
    drawn = mix.fixed_items(count, SEED, "test", weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as out:
        for item in drawn:
            row = {
                "messages": [asdict(message) for message in item.messages],
                "answer": item.answer,
                "task": item.kind,
                "level": item.level,
                "closed": item.closed,
            }
            out.write(json.dumps(row) + "\n")
