"""How a checkpoint asks to be sampled: its generation_config.json."""

from __future__ import annotations

import json
from pathlib import Path

from .engine import EngineError

FIELDS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
)


def checkpoint_sampling(model_dir: Path) -> dict[str, float]:
    """Return what generation_config.json says of `FIELDS`; ``"do_sample": false`` means temperature 0.

    Empty without the file. Raises EngineError when it cannot be read.
    """
    path = model_dir / "generation_config.json"
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as exc:
        raise EngineError(f"cannot read {path}: {exc}") from exc
    if not isinstance(written, dict):
        raise EngineError(f"cannot read {path}: expected an object")
    chosen = {name: written[name] for name in FIELDS if written.get(name) is not None}
    greedy = {"temperature": 0.0} if written.get("do_sample") is False else {}
    return {**chosen, **greedy}
