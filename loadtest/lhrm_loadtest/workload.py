"""Prompts and the order in which the two arms ask them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

DEFAULT_PROMPTS = Path(__file__).parent / "prompts" / "default.jsonl"


class LoadTestError(Exception):
    """A load test that cannot run or be reported; the message names what is wrong."""


class Arm(Enum):
    """What is asked of the gateway: the model decides, or it always thinks."""

    AUTO = "auto"
    THINK = "think"


class Turn(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: str
    content: str


class Prompt(BaseModel):
    """One line of a prompt file: ``messages`` or ``prompt``, and what is known about it.

    `answer` is the right answer, or several; without it the prompt counts for cost only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    messages: tuple[Turn, ...]
    answer: str | tuple[str, ...] | None = None
    task: str | None = None
    level: int | str | None = None
    closed: bool = False

    @model_validator(mode="before")
    @classmethod
    def _prompt_is_one_user_turn(cls, raw: object) -> object:
        if not isinstance(raw, dict) or "prompt" not in raw:
            return raw
        if "messages" in raw:
            raise ValueError("has both prompt and messages")
        rest = {name: value for name, value in raw.items() if name != "prompt"}
        return {**rest, "messages": [{"role": "user", "content": raw["prompt"]}]}

    @model_validator(mode="after")
    def _some_turn(self) -> Prompt:
        if not self.messages:
            raise ValueError("messages is empty")
        return self


@dataclass(frozen=True)
class Job:
    """One request to make. Both arms of a pair share prompt, repeat and seed; `position` is its place in the run."""

    position: int
    arm: Arm
    prompt: Prompt
    repeat: int
    seed: int


def load_prompts(path: Path) -> list[Prompt]:
    """Read a JSONL prompt file; a line without ``id`` gets its number. Raises LoadTestError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise LoadTestError(f"cannot read prompts {path}: {exc}") from exc
    prompts = [_parse(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    repeated = _first_repeated(prompt.id for prompt in prompts)
    if repeated is not None:
        raise LoadTestError(f"{path}: id {repeated!r} occurs twice")
    if not prompts:
        raise LoadTestError(f"{path} has no prompts")
    return prompts


def _parse(path: Path, number: int, line: str) -> Prompt:
    try:
        raw = json.loads(line)
        return Prompt.model_validate({"id": str(number), **raw} if isinstance(raw, dict) else raw)
    except ValidationError as exc:
        first = exc.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "line"
        raise LoadTestError(f"{path}:{number}: {where}: {first['msg']}") from exc
    except ValueError as exc:
        raise LoadTestError(f"{path}:{number}: not JSON: {exc}") from exc


def _first_repeated(ids: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for value in ids:
        if value in seen:
            return value
        seen.add(value)
    return None


def plan(prompts: Sequence[Prompt], n: int | None, repeats: int, seed: int) -> list[Job]:
    """Return the jobs in ABBA order over a seeded shuffle of the prompts: each arm goes first equally often.

    `n` None takes every prompt. The second request of a pair may find the prompt in the prefix cache; the
    alternation gives that advantage to both arms alike. Raises LoadTestError when there are fewer than
    `n` prompts: asking one twice would not be a new observation.
    """
    count = len(prompts) if n is None else n
    if not 1 <= count <= len(prompts):
        raise LoadTestError(f"n={count}: the prompt file has {len(prompts)} prompts")
    if repeats < 1:
        raise LoadTestError(f"repeats={repeats} is less than 1")
    rng = random.Random(seed)
    chosen = rng.sample(prompts, count)
    jobs: list[Job] = []
    for repeat in range(repeats):
        for pair, prompt in enumerate(rng.sample(chosen, count)):
            pair_seed = rng.randrange(2**31)
            for arm in (Arm.AUTO, Arm.THINK) if pair % 2 == 0 else (Arm.THINK, Arm.AUTO):
                jobs.append(Job(len(jobs), arm, prompt, repeat, pair_seed))
    return jobs
