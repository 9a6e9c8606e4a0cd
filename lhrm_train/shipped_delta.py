"""A model that is shipped as a delta to a published base: whether its weights were built, and from this delta."""

from __future__ import annotations

import hashlib
from pathlib import Path

DELTA = Path("delta", "delta.json")
BUILT_FROM = "built-from.sha256"


def has_delta(model: Path) -> bool:
    """Return whether a delta lies in the folder of the model."""
    return (model / DELTA).is_file()


def note_built(model: Path) -> None:
    """Write down that the weights in `model` were built from the delta beside them."""
    (model / BUILT_FROM).write_text(_digest(model) + "\n", encoding="utf-8")


def built_from_its_delta(model: Path) -> bool:
    """Return whether `note_built` was called with the delta that is there now."""
    note = model / BUILT_FROM
    return note.is_file() and note.read_text(encoding="utf-8").strip() == _digest(model)


def _digest(model: Path) -> str:
    return hashlib.sha256((model / DELTA).read_bytes()).hexdigest()
