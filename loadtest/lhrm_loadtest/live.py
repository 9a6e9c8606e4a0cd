"""Progress of a run with live figures, on the terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .rows import Row

REFRESH_PER_S = 2.0


@dataclass
class ArmTally:
    """What one arm gave so far."""

    answered: int = 0
    errors: int = 0
    tokens: int = 0
    scores: int = 0
    scored: float = 0.0

    def add(self, row: Row) -> None:
        """Count one row."""
        if row.reply is None:
            self.errors += 1
            return
        self.answered += 1
        self.tokens += row.reply.completion_tokens
        if row.score is not None:
            self.scores += 1
            self.scored += row.score

    def text(self, name: str) -> str:
        """Return mean tokens, accuracy in per cent and errors, as far as there are any."""
        parts = [name]
        if self.answered:
            parts.append(f"{self.tokens / self.answered:.1f} tok")
        if self.scores:
            parts.append(f"{100 * self.scored / self.scores:.1f} %")
        if self.errors:
            parts.append(f"{self.errors} errors")
        return " ".join(parts)


class Live:
    """A bar, the load at hand, requests per second, and the arms' figures of all sessions so far."""

    def __init__(self, total: int, arms: Iterable[str], done: Iterable[Row], console: Console) -> None:
        self._tallies = {arm: ArmTally() for arm in arms}
        self._rows, self._begin_s = 0, time.monotonic()
        before = list(done)
        for row in before:
            self._tally(row)
        self._progress = Progress(
            BarColumn(20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=console,
            refresh_per_second=REFRESH_PER_S,
        )
        self._task = self._progress.add_task("", total=total, completed=len(before))

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def add(self, row: Row) -> None:
        """Count one row."""
        self._rows += 1
        self._tally(row)
        self._progress.update(self._task, advance=1, description=self.text(row))

    def text(self, row: Row) -> str:
        """Return the live figures, `row` being the last one."""
        per_s = self._rows / max(1e-9, time.monotonic() - self._begin_s)
        load = f"{row.concurrency} at a time" if row.concurrency else f"{row.rate:g}/s" if row.rate else "trace"
        arms = " | ".join(tally.text(name) for name, tally in self._tallies.items())
        return f"{load} | {per_s:.1f} answers/s | {arms}"

    def _tally(self, row: Row) -> None:
        if not row.warmup:
            self._tallies.setdefault(row.arm, ArmTally()).add(row)
