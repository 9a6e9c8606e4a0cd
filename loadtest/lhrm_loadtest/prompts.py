"""Prompts: what is asked, how an answer is scored and, in a trace, when it arrives; read from and kept as JSONL."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from .errors import LoadTestError, describe
from .text import is_whole

# A prompt is kept as the one turn of a conversation.
_PROMPT_NAMES = {"messages.0.content": "prompt"}
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
    def _nothing_empty(self) -> Prompt:
        if not self.messages:
            raise ValueError("messages is empty")
        if self.answer == ():
            raise ValueError("answer is an empty list")
        return self


def load_prompts(path: Path, check: Callable[[Prompt], None] | None = None) -> list[Prompt]:
    """Read a JSONL prompt file; a line without ``id`` gets its number. Raises LoadTestError naming file and line.

    `check` raises LoadTestError for a prompt that cannot be used.
    """
    try:
        # Editors on Windows begin a file with a byte order mark.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as exc:
        raise LoadTestError(f"cannot read prompts {path}: {exc}") from exc
    prompts: dict[str, Prompt] = {}
    numbers: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            prompt = _parse(number, line)
            if prompt.id in prompts:
                # Their rows could not be told apart.
                raise LoadTestError(f"id = {prompt.id!r}: line {numbers[prompt.id]} has it too")
            if check is not None:
                check(prompt)
        except LoadTestError as exc:
            raise LoadTestError(f"{path}:{number}: {exc}") from exc
        prompts[prompt.id], numbers[prompt.id] = prompt, number
    if not prompts:
        raise LoadTestError(f"{path} has no prompts")
    return list(prompts.values())


def _parse(number: int, line: str) -> Prompt:
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise LoadTestError(f"not JSON: {exc}") from exc
    fields = raw if isinstance(raw, dict) else {}
    for name, value in fields.items():
        if not is_whole(json.dumps([name, value], ensure_ascii=False)):
            raise LoadTestError(f"{name!r} has half of a UTF-16 surrogate pair, which is no text")
    try:
        return Prompt.model_validate({"id": str(number), **fields} if isinstance(raw, dict) else raw)
    except ValidationError as exc:
        raise LoadTestError(describe(exc, _PROMPT_NAMES if "prompt" in fields else {})) from exc


def prompt_lines(prompts: Iterable[Prompt]) -> str:
    """Return the prompts as JSON lines that `load_prompts` reads back."""
    return "".join(prompt.model_dump_json(exclude_defaults=True) + "\n" for prompt in prompts)


def digest(prompts: Sequence[Prompt]) -> str:
    """Return the SHA-256 of the prompts, in their order."""
    return hashlib.sha256(prompt_lines(prompts).encode()).hexdigest()
