"""A run's curves: one JSON line per step, and the same numbers for TensorBoard."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

METRICS_NAME = "metrics.jsonl"


def read_metrics(directory: Path) -> list[dict[str, Any]]:
    """Return the rows of a finished or running stage, None where a mean was of nothing; empty without a file."""
    path = directory / METRICS_NAME
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


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
        kept = [row for row in read_metrics(directory) if row["step"] <= done]
        path = directory / METRICS_NAME
        path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")
        self._board = _board(directory / "tensorboard", done)

    def write(self, row: Mapping[str, float]) -> None:
        """Append the row of step ``row["step"]``."""
        if self._file is None:
            return
        # JSON has no NaN.
        finite = {name: round(value, 5) if math.isfinite(value) else None for name, value in row.items()}
        self._file.write(json.dumps(finite) + "\n")
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


def _board(directory: Path, done: int) -> Any | None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(directory), purge_step=done + 1)
