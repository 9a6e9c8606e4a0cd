"""The raw rows of an evaluation: one per prompt, from which every reported figure derives."""

from __future__ import annotations

import gzip
import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from lhrm_train.atomic import write_bytes


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean; raises ZeroDivisionError on an empty sequence."""
    return sum(values) / len(values)


def known_mean(values: Iterable[float | None]) -> float:
    """Arithmetic mean of the values that are known; NaN where none is."""
    known = [value for value in values if value is not None]
    return mean(known) if known else math.nan


@dataclass(frozen=True)
class ModeSamples:
    """The samples of one mode on one prompt; all tuples are aligned, and empty where the mode was not sampled.

    A score is None where the scorer failed or no answer came: such a sample is invalid, not wrong. `tokens`
    counts the completion after the opening tag and is None where no answer came. None elsewhere means unknown.
    `truncated` and `leak_words` are empty in rows that were written before they existed.
    """

    scores: tuple[float | None, ...] = ()
    tokens: tuple[int | None, ...] = ()
    leaked: tuple[bool | None, ...] = ()
    overlong: tuple[bool | None, ...] = ()
    truncated: tuple[bool | None, ...] = ()
    leak_words: tuple[int | None, ...] = ()

    @property
    def score(self) -> float:
        """Mean score of the valid samples; NaN without one."""
        return known_mean(self.scores)

    @property
    def mean_tokens(self) -> float:
        """Mean completion tokens of the samples that have an answer; NaN without one."""
        return known_mean(self.tokens)

    @property
    def invalid(self) -> int:
        """Number of samples without a score."""
        return sum(score is None for score in self.scores)


def thinks(p_think: float | None) -> bool:
    """Return the free choice: think iff P(think) >= 0.5; a model that does not decide thinks."""
    return p_think is None or p_think >= 0.5


@dataclass(frozen=True)
class Row:
    """Everything measured on one prompt; every reported figure derives from these rows.

    `p_think` is None where the model does not decide, and `mass` where it is not told. `index` is the prompt's
    place in what was evaluated (-1 in rows that were written before it existed); `error` holds the first failure.
    """

    kind: str
    level: int
    closed: bool
    context: str
    key: str
    prompt_tokens: int
    p_think: float | None
    mass: float | None
    think: ModeSamples
    no_think: ModeSamples
    index: int = -1
    error: str = ""

    @property
    def chooses_think(self) -> bool:
        """The free choice of one row."""
        return thinks(self.p_think)

    @property
    def invalid(self) -> int:
        """Number of samples without a score, of both modes."""
        return self.think.invalid + self.no_think.invalid

    @property
    def decides(self) -> bool:
        """Whether the model could have answered in either mode."""
        return bool(self.no_think.scores)

    @property
    def counts(self) -> bool:
        """Whether every sampled mode has a valid sample and, where there are two, the choice is known."""
        if math.isnan(self.think.score):
            return False
        return not self.decides or (self.p_think is not None and not math.isnan(self.no_think.score))

    @property
    def complete(self) -> bool:
        """Whether nothing of it has to be made again."""
        return self.counts and not self.invalid


@dataclass(frozen=True)
class ContextRow:
    """Free-choice scores of one question in one conversation context; none where the model could not be asked.

    `index` is its place in what was evaluated (-1 in rows that were written before it existed).
    """

    variant: str
    kind: str
    level: int
    key: str
    p_think: float | None
    scores: tuple[float, ...]
    index: int = -1
    error: str = ""

    @property
    def counts(self) -> bool:
        """Whether there is a valid sample."""
        return bool(self.scores)

    @property
    def complete(self) -> bool:
        """Whether nothing of it has to be made again."""
        return self.counts and not self.error


AnyRow = TypeVar("AnyRow", Row, ContextRow)


def _lines(rows: Iterable[Row | ContextRow]) -> str:
    return "".join(json.dumps(asdict(row), separators=(",", ":"), allow_nan=False) + "\n" for row in rows)


def _row(raw: dict[str, Any]) -> Row:
    for name in ("think", "no_think"):
        raw[name] = ModeSamples(**{key: tuple(value) for key, value in raw[name].items()})
    return Row(**raw)


def _context_row(raw: dict[str, Any]) -> ContextRow:
    return ContextRow(**{**raw, "scores": tuple(raw["scores"])})


def write_rows(path: Path, rows: Iterable[Row | ContextRow]) -> None:
    """Write rows as gzipped JSON lines; the same rows give the same bytes, and a file with these is not touched."""
    data = gzip.compress(_lines(rows).encode(), mtime=0)
    if not path.is_file() or path.read_bytes() != data:
        write_bytes(path, data)


def read_rows(path: Path) -> list[Row]:
    """Read what write_rows wrote from Row objects."""
    return [_row(json.loads(line)) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]


def read_context_rows(path: Path) -> list[ContextRow]:
    """Read what write_rows wrote from ContextRow objects."""
    return [_context_row(json.loads(line)) for line in gzip.decompress(path.read_bytes()).decode().splitlines()]


class RowLog(Generic[AnyRow]):
    """Rows as plain JSON lines that grow while an evaluation runs and survive its being killed."""

    def __init__(self, path: Path, parse: Callable[[dict[str, Any]], AnyRow]) -> None:
        self.path = path
        self._parse: Callable[[dict[str, Any]], AnyRow] = parse

    def append(self, rows: Sequence[AnyRow]) -> None:
        """Add rows; they are on the disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.write(_lines(rows).encode())
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> list[AnyRow]:
        """Return the complete rows; a last line without its end, left by a killed process, is not one."""
        if not self.path.is_file():
            return []
        *whole, _ = self.path.read_bytes().split(b"\n")
        return [self._parse(json.loads(line)) for line in whole]

    def keep(self, rows: Sequence[AnyRow]) -> None:
        """Leave only `rows` in the log, in one step; a log that holds just these is not touched."""
        wanted = _lines(rows).encode()
        if self.path.is_file() and self.path.read_bytes() != wanted:
            write_bytes(self.path, wanted)


def row_log(path: Path) -> RowLog[Row]:
    """Return the log of `Row` objects at `path`."""
    return RowLog(path, _row)


def context_log(path: Path) -> RowLog[ContextRow]:
    """Return the log of `ContextRow` objects at `path`."""
    return RowLog(path, _context_row)
