"""Prompts: what is asked, how an answer is scored and, in a trace, when it arrives; read from and kept as JSONL."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from .errors import LoadTestError, describe

DEFAULT_PROMPTS = Path(__file__).parent / "prompts" / "default.jsonl"


class Turn(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: str
    content: str


class Prompt(BaseModel):
    """One line of a prompt file: ``messages`` or ``prompt``, and what is known about it.

    `answer` is the right answer, or several; without it the prompt counts for cost only. `scorer` names a row of the
    training package's scorer table, which reads `fields` too; None compares text. `arrival_s` is the second of a
    recorded trace at which the request came.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    messages: tuple[Turn, ...]
    answer: str | tuple[str, ...] | None = None
    scorer: str | None = None
    fields: dict[str, JsonValue] = Field(default_factory=dict)
    task: str | None = None
    level: int | str | None = None
    closed: bool = False
    arrival_s: float | None = Field(default=None, ge=0, allow_inf_nan=False)

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


def load_prompts(path: Path) -> list[Prompt]:
    """Read a JSONL prompt file; a line without ``id`` gets its number. Raises LoadTestError naming file and line."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as exc:
        raise LoadTestError(f"cannot read prompts {path}: {exc}") from exc
    prompts = [_parse(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not prompts:
        raise LoadTestError(f"{path} has no prompts")
    refuse_repeated_ids(str(path), prompts)
    return prompts


def _parse(path: Path, number: int, line: str) -> Prompt:
    try:
        raw = json.loads(line)
        return Prompt.model_validate({"id": str(number), **raw} if isinstance(raw, dict) else raw)
    except ValidationError as exc:
        raise LoadTestError(f"{path}:{number}: {describe(exc)}") from exc
    except ValueError as exc:
        raise LoadTestError(f"{path}:{number}: not JSON: {exc}") from exc


def refuse_repeated_ids(source: str, prompts: Iterable[Prompt]) -> None:
    """Raise LoadTestError when two prompts have one id: their rows could not be told apart."""
    seen: set[str] = set()
    for prompt in prompts:
        if prompt.id in seen:
            raise LoadTestError(f"{source}: id {prompt.id!r} occurs twice")
        seen.add(prompt.id)


def prompt_lines(prompts: Iterable[Prompt]) -> str:
    """Return the prompts as JSON lines that `load_prompts` reads back."""
    return "".join(prompt.model_dump_json(exclude_defaults=True) + "\n" for prompt in prompts)


def digest(prompts: Sequence[Prompt]) -> str:
    """Return the SHA-256 of the prompts, in their order."""
    return hashlib.sha256(prompt_lines(prompts).encode()).hexdigest()
