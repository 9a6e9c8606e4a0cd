"""The raw rows of a run: one JSON line per request, from which every figure of the report follows."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from lhrm_client import Accounting, Usage
from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from .workload import Arm, LoadTestError

ROWS_NAME, RUN_NAME = "rows.jsonl", "run.json"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Outcome(_Record):
    """What a request that succeeded gave; times are the client's, from sending, None when no such token came."""

    accounting: Accounting
    usage: Usage
    first_token_ms: float | None
    first_answer_ms: float | None
    total_ms: float
    correct: bool | None


class Row(_Record):
    """One request: which it was, and either its outcome or its error."""

    position: int
    arm: Arm
    prompt: str
    task: str | None
    level: int | str | None
    closed: bool
    repeat: int
    seed: int
    started_ms: float
    request_id: str | None
    outcome: Outcome | None
    error: str | None


class RunInfo(_Record):
    """What a published figure must carry: how, when, on what and against what it was measured."""

    started_at: str
    command: str
    base_url: str
    model: str
    server: dict[str, JsonValue]
    prompts: str
    prompts_sha256: str
    n: int
    repeats: int
    concurrency: int
    seed: int
    think_threshold: float | None
    max_tokens: int | None
    temperature: float | None
    client_version: str
    machine: str
    python: str
    note: str | None


class RowWriter:
    """Append rows to a new file, each complete on disk before the next; without any row there is no file."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / ROWS_NAME
        self._empty = True
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("x", encoding="utf-8")
        except FileExistsError as exc:
            raise LoadTestError(f"{exc.filename} exists: choose another --out") from exc
        except OSError as exc:
            raise LoadTestError(f"cannot write to {directory}: {exc}") from exc

    def write(self, row: Row) -> None:
        """Append one row."""
        self._file.write(row.model_dump_json() + "\n")
        self._file.flush()
        self._empty = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._empty:
            self._path.unlink()


def read_rows(directory: Path) -> list[Row]:
    """Read the rows of a run, in the order they were planned. Raises LoadTestError."""
    path = directory / ROWS_NAME
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as exc:
        raise LoadTestError(f"cannot read {path}: {exc}") from exc
    rows = [_parse(path, number, line) for number, line in enumerate(lines, start=1)]
    if not rows:
        raise LoadTestError(f"{path} has no rows")
    return sorted(rows, key=lambda row: row.position)


def _parse(path: Path, number: int, line: str) -> Row:
    try:
        return Row.model_validate_json(line)
    except ValidationError as exc:
        raise LoadTestError(f"{path}:{number}: {exc.errors()[0]['msg']}") from exc


def read_run(directory: Path) -> RunInfo | None:
    """Read how the run was made; None when only the rows are there."""
    path = directory / RUN_NAME
    if not path.is_file():
        return None
    try:
        return RunInfo.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as exc:
        raise LoadTestError(f"{path}: {exc.errors()[0]['msg']}") from exc
