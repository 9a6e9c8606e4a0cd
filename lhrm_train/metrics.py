"""A run's curves: one JSON line per step, and the same numbers for TensorBoard."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from lhrm_train.atomic import write_bytes

METRICS_NAME = "metrics.jsonl"


def read_metrics(directory: Path) -> list[dict[str, Any]]:
    """Return the rows of a finished or running stage, None where a mean was of nothing; empty without a file.

    A last line without its end, left by a killed process or a full disk, is not a row.
    """
    return [json.loads(line) for line in _whole_lines(directory / METRICS_NAME)]


def _whole_lines(path: Path) -> list[bytes]:
    return path.read_bytes().split(b"\n")[:-1] if path.is_file() else []


class MetricsLog:
    """Appends rows to ``metrics.jsonl`` and, where the package is installed, to ``tensorboard/``.

    Rows after step `done` belong to steps that a resumed run takes again, so they are dropped. An inactive
    log (of any process but the first) writes nothing.
    """

    def __init__(self, directory: Path, done: int, active: bool = True) -> None:
        self._file: IO[str] | None = None
        self._board: Any | None = None
        if not active:
            return
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / METRICS_NAME
        _keep_until(path, done)
        self._file = path.open("a", encoding="utf-8")
        self._board = _board(directory / "tensorboard", done)

    def write(self, row: Mapping[str, float]) -> None:
        """Append the row of step ``row["step"]``; fractions keep 6 significant digits."""
        if self._file is None:
            return
        self._file.write(json.dumps({name: _rounded(value) for name, value in row.items()}) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in row.items():
                if name != "step":
                    self._board.add_scalar(name, value, int(row["step"]))

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        if self._board is not None:
            self._board.close()


def _keep_until(path: Path, done: int) -> None:
    """Cut the rows after step `done` and half a last line; a file without either is not touched."""
    kept = b"".join(line + b"\n" for line in _whole_lines(path) if json.loads(line)["step"] <= done)
    if path.is_file() and path.stat().st_size != len(kept):
        write_bytes(path, kept)


def _rounded(value: float) -> float | None:
    if not math.isfinite(value):
        return None  # JSON has no NaN
    return value if value == int(value) else float(f"{value:.6g}")


def _board(directory: Path, done: int) -> Any | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(directory), purge_step=done + 1)
