"""The values a caller sees: options of a call, the result, and the events of a stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypedDict

from pydantic import BaseModel, ConfigDict, Field, JsonValue

Mode: TypeAlias = Literal["auto", "think", "no_think"]
"""What a caller asks for; ``auto`` lets the model decide."""

Messages: TypeAlias = str | Sequence[Mapping[str, JsonValue]]
"""A question, or a conversation in the OpenAI shape."""


class ChatOptions(TypedDict, total=False):
    """Options of one call; an absent or None option leaves the choice to the server.

    `mode` None follows the model alias and the server's default. `think_threshold` in [0, 1] is the cost
    dial: the model thinks when its P(think) reaches it. `extra` holds further fields of the request body.
    """

    model: str | None
    mode: Mode | None
    think_threshold: float | None
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    seed: int | None
    extra: Mapping[str, JsonValue] | None


class _Value(BaseModel):
    """A frozen value; fields that a newer server adds are ignored here and stay in ``ChatResult.raw``."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Usage(_Value):
    """Token counts as the API bills them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    reasoning_tokens: int = 0


class Savings(_Value):
    """An estimate of the completion tokens saved against always thinking; negative when it cost more."""

    tokens: float
    interval: tuple[float, float] | None = None
    confidence: float | None = None
    n: int | None = None
    method: str | None = None
    provenance: str | None = None


class Latency(_Value):
    """Server-side milliseconds since the request arrived, `decide_ms` a duration; None where nothing such happened."""

    queue_ms: float | None = None
    decide_ms: float | None = None
    first_token_ms: float | None = None
    first_answer_token_ms: float | None = None
    total_ms: float | None = None


class Accounting(_Value):
    """The response's ``lhrm`` object: which mode ran, who chose it, what it cost."""

    mode: Literal["think", "no_think"]
    source: str
    p_think: float | None = None
    threshold: float | None = None
    reasoning_tokens: int
    answer_tokens: int
    overhead_tokens: int
    decide_tokens: int
    ended_by: str
    reasoning_ended_by: str | None = None
    latency: Latency
    savings: Savings | None = None


class ChatResult(Accounting):
    """One answer with its accounting. `raw` is the response body; for a stream, the body it adds up to."""

    answer: str
    reasoning: str | None = None
    finish_reason: str | None = None
    model: str
    usage: Usage
    request_id: str | None = None
    raw: dict[str, JsonValue] = Field(repr=False)

    def accounting(self) -> Accounting:
        """Return the accounting apart from the text."""
        return Accounting(**{name: getattr(self, name) for name in Accounting.model_fields})


class ModelInfo(_Value):
    """One entry of the model list; `lhrm` is its capability block."""

    id: str
    lhrm: dict[str, JsonValue] | None = None


@dataclass(frozen=True)
class ReasoningDelta:
    """A piece of the reasoning."""

    text: str


@dataclass(frozen=True)
class AnswerDelta:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True)
class Finished:
    """The last event of a stream."""

    result: ChatResult


ChatEvent: TypeAlias = ReasoningDelta | AnswerDelta | Finished
