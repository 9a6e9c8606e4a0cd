"""Files and directories that are complete or absent, whatever ends the process or fills the disk."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path


def write_bytes(path: Path, data: bytes) -> None:
    """Replace `path` in one step, making its directory; until then the old file stays. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = _beside(path, "tmp")
    try:
        with fresh.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)  # a full disk must not stay full
        raise


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of UTF-8."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: object) -> None:
    """`write_text` of JSON, one space deep, with a line end."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def replace_directory(target: Path, write: Callable[[Path], None]) -> None:
    """Replace `target` by what `write` puts into the empty folder it is given; nothing if `write` raises.

    A killed process leaves at most the temporary folder behind, never half of `target`.
    """
    fresh, old = _beside(target, "tmp"), _beside(target, "old")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        write(fresh)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _beside(path: Path, suffix: str) -> Path:
    path = path.absolute()  # "." has no name
    return path.with_name(f".{path.name}.{os.getpid()}.{suffix}")
