"""How a run was made: its settings, from which it can be resumed, and what a published figure must carry."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from .arms import Arm
from .driver import Sampling
from .errors import LoadTestError, describe
from .figures import Price
from .plan import Design, Layout, Step
from .slo import Slo, parse_slo

Servers: TypeAlias = dict[str, dict[str, JsonValue]]
RUN_NAME, PROMPTS_NAME = "run.json", "prompts.jsonl"


class Settings(BaseModel):
    """What decides a run's rows, besides its prompts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    arms: tuple[Arm, ...]
    baseline: str
    steps: tuple[Step, ...]
    layout: Layout
    repeats: int = 1
    warmup: int = 2
    seed: int = 0
    max_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    timeout_s: float = Field(default=600.0, gt=0, allow_inf_nan=False)
    slos: tuple[str, ...] = ()
    price: Price | None = None

    @property
    def design(self) -> Design:
        """The layout of the run."""
        names = tuple(arm.name for arm in self.arms)
        return Design(names, self.steps, self.layout, self.repeats, self.warmup, self.seed)

    @property
    def sampling(self) -> Sampling:
        """What holds for every request."""
        return Sampling(self.max_tokens, self.temperature, self.timeout_s)

    @property
    def objectives(self) -> list[Slo]:
        """The SLOs, as values. Raises LoadTestError for one that cannot be read."""
        return [parse_slo(text) for text in self.slos]


class RunInfo(BaseModel):
    """How, when, with what and against what a run was made. `sessions` are the times at which it began or went on.

    `servers` is what the endpoints told of themselves in the last session, `earlier_servers` in those before.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    command: str
    source: str
    prompts: int
    prompts_sha256: str
    mix: str
    settings: Settings
    sessions: tuple[str, ...]
    servers: Servers
    earlier_servers: tuple[Servers, ...] = ()
    version: str
    machine: str
    python: str
    note: str | None = None


def this_machine() -> dict[str, str]:
    """Return the fields of RunInfo that say where the load test itself runs."""
    try:
        own = version("lhrm")
    except PackageNotFoundError:
        own = "unknown"
    return {
        "version": own,
        "machine": f"{platform.platform()}, {os.cpu_count()} CPUs",
        "python": platform.python_version(),
    }


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_run(directory: Path, info: RunInfo) -> None:
    """Write how the run is made beside its rows: all of it or, where the process is killed, nothing."""
    unfinished = directory / f".{RUN_NAME}"
    unfinished.write_text(info.model_dump_json(indent=1) + "\n", encoding="utf-8")
    unfinished.replace(directory / RUN_NAME)


def read_run(directory: Path) -> RunInfo | None:
    """Read how the run was made; None when only the rows are there. Raises LoadTestError."""
    path = directory / RUN_NAME
    if not path.is_file():
        return None
    try:
        return RunInfo.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as exc:
        raise LoadTestError(f"{path}: {describe(exc)}") from exc
