"""The raw rows of a run: one JSON line per request, from which every figure of the report follows."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from .arms import Asked
from .errors import LoadTestError, describe
from .text import Text

ROWS_NAME = "rows.jsonl"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Savings(_Record):
    """The server's own estimate of the completion tokens it saved, with the range it gives."""

    tokens: float
    interval: tuple[float, float] | None = None
    confidence: float | None = None


class Reply(_Record):
    """What a request that succeeded gave; None for what the endpoint does not tell.

    `mode` is the mode that ran. `decide_tokens` are not among `completion_tokens`. `answer` is the text outside the
    reasoning. `queue_ms`, until the engine was asked, and `decide_ms`, the length of the decision, are the server's.
    """

    mode: Text
    source: Text | None = None
    p_think: float | None = None
    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int | None = None
    answer_tokens: int | None = None
    decide_tokens: int = 0
    ended_by: Text | None = None
    reasoning_ended_by: Text | None = None
    queue_ms: float | None = None
    decide_ms: float | None = None
    savings: Savings | None = None
    answer: Text


class Row(_Record):
    """One request: which it was, when what happened, and either its reply or its error.

    `pair` is shared by the arms' requests for one prompt and seed. Times are milliseconds since the block began in its
    session; a session ends when the run is stopped. `scheduled_ms` is when the request was due: in a closed loop the
    moment it is sent, in an open loop its arrival, however late it was sent. `driver_cpu_ms` is what the load test had
    used of a processor, since the block began, when the row was written. Rows of `warmup` count for nothing but
    the throughput of their block.
    """

    position: int
    session: int
    block: int
    repeat: int
    pair: int
    warmup: bool
    arm: str
    asked: Asked
    model: Text
    prompt: str
    task: str | None
    level: int | str | None
    closed: bool
    seed: int
    concurrency: int | None
    rate: float | None
    scheduled_ms: float
    sent_ms: float
    first_token_ms: float | None
    first_answer_ms: float | None
    end_ms: float
    driver_cpu_ms: float
    request_id: Text | None
    reply: Reply | None
    score: float | None
    scoring_error: Text | None = None
    error: Text | None


class RowWriter:
    """Append rows to a file, each handed to the system before the next; a file without rows goes."""

    def __init__(self, directory: Path, resume: bool = False) -> None:
        self._path = directory / ROWS_NAME
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a" if resume else "x", encoding="utf-8")
        except FileExistsError as exc:
            raise LoadTestError(f"{exc.filename} exists: choose another --out, or resume {directory}") from exc
        except OSError as exc:
            raise LoadTestError(f"cannot write to {directory}: {exc}") from exc

    def write(self, row: Row) -> None:
        """Append one row."""
        self._file.write(row.model_dump_json() + "\n")
        self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if not self._path.stat().st_size:
            self._path.unlink()


def read_rows(directory: Path) -> list[Row]:
    """Read the rows of a run, in the order they were planned; of requests that were made again, the last row counts.

    Raises LoadTestError naming file and line.
    """
    return last_rows(read_history(directory))


def last_rows(history: Iterable[Row]) -> list[Row]:
    """Return the last row of every request, in the order they were planned."""
    last = {row.position: row for row in history}
    return [last[position] for position in sorted(last)]


def read_history(directory: Path) -> list[Row]:
    """Read all rows of a run, in the order they were written; a last line that was cut off is left out.

    Raises LoadTestError naming file and line.
    """
    path = directory / ROWS_NAME
    try:
        whole, _, _ = path.read_text(encoding="utf-8").rpartition("\n")
    except (OSError, UnicodeDecodeError) as exc:
        raise LoadTestError(f"cannot read {path}: {exc}") from exc
    rows = [_parse(path, number, line) for number, line in enumerate(whole.split("\n"), start=1) if line]
    if not rows:
        raise LoadTestError(f"{path} has no rows")
    return rows


def drop_cut_line(directory: Path) -> None:
    """Take a last line without its end off the rows, so that others can follow."""
    path = directory / ROWS_NAME
    if path.is_file():
        content = path.read_bytes()
        with path.open("rb+") as file:
            file.truncate(content.rfind(b"\n") + 1)


def _parse(path: Path, number: int, line: str) -> Row:
    try:
        return Row.model_validate_json(line)
    except ValidationError as exc:
        raise LoadTestError(f"{path}:{number}: {describe(exc)}") from exc
