"""Test prompts as JSON lines, the shape the load test reads."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from lhrm_train.suite import mix

SEED = 50_001


def write_prompts(path: Path, count: int) -> None:
    """Write `count` test items with their reference answers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as out:
        for item in mix.fixed_items(count, SEED, "test"):
            row = {
                "messages": [asdict(message) for message in item.messages],
                "answer": item.answer,
                "task": item.kind,
                "level": item.level,
                "closed": item.closed,
            }
            out.write(json.dumps(row) + "\n")
