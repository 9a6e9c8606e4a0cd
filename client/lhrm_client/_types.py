"""The values a caller reads: the result of a call, its accounting, and the models of a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from ._parse import parse_as

ModelT = TypeVar("ModelT", bound=BaseModel)

Mode: TypeAlias = Literal["auto", "think", "no_think"]
"""What a caller asks for; ``auto`` lets the model decide."""

RunMode: TypeAlias = Literal["think", "no_think"]
"""What ran."""

Messages: TypeAlias = str | Sequence[Mapping[str, JsonValue]]
"""A question, or turns in the OpenAI shape."""


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


class Decision(_Value):
    """Which mode runs, who chose it (``model``, ``request`` or ``policy``), and P(think) where the model was asked."""

    mode: RunMode
    source: str
    p_think: float | None = None
    threshold: float | None = None


class Accounting(Decision):
    """The response's ``lhrm`` object: which mode ran, who chose it, what it cost in tokens."""

    reasoning_tokens: int
    answer_tokens: int
    overhead_tokens: int
    decide_tokens: int
    ended_by: str
    reasoning_ended_by: str | None = None
    latency: Latency
    savings: Savings | None = None


class ChoiceAccounting(_Value):
    """One choice's own counts in tokens and its endings; `answer_missing` says why there is no answer."""

    reasoning_tokens: int
    answer_tokens: int
    overhead_tokens: int
    ended_by: str
    reasoning_ended_by: str | None = None
    answer_missing: str | None = None
    answer_retried: bool = False


class ToolCall(_Value):
    """A call the model asks for; `arguments` is JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str

    def arguments_as(self, model: type[ModelT]) -> ModelT:
        """Return the arguments as `model`. Raises ParseError where they do not fit."""
        return parse_as(model, self.arguments, f"the arguments of the call {self.id} of {self.name}", None)


class Choice(_Value):
    """One answer of a result; there are more than one where `n` asked for them."""

    index: int
    answer: str
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    stop_reason: str | None = None
    accounting: ChoiceAccounting | None = None


class ChatResult(Accounting):
    """One answer with its accounting: text and calls of the first choice, counts of all.

    `reasoning` is None in no-think and where it was asked to be hidden. `raw` is the response body; for a
    stream, the body it adds up to.
    """

    answer: str
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str | None = None
    answer_missing: str | None = None
    model: str
    usage: Usage
    request_id: str | None = None
    choices: tuple[Choice, ...] = ()
    raw: dict[str, JsonValue] = Field(repr=False)

    @property
    def message(self) -> dict[str, JsonValue]:
        """The answer as the assistant's turn, to append to the messages of the next call."""
        calls: list[JsonValue] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in self.tool_calls
        ]
        turn: dict[str, JsonValue] = {"role": "assistant", "content": self.answer}
        return {**turn, "tool_calls": calls} if calls else turn

    def accounting(self) -> Accounting:
        """Return the accounting apart from the text."""
        return Accounting(**{name: getattr(self, name) for name in Accounting.model_fields})

    def answer_as(self, model: type[ModelT]) -> ModelT:
        """Return the answer, JSON text, as `model`. Raises ParseError where it does not fit."""
        return parse_as(model, self.answer, f"the answer (ended by {self.ended_by})", self.request_id)


class ModelInfo(_Value):
    """One entry of the model list; `lhrm` is its capability block."""

    id: str
    lhrm: dict[str, JsonValue] | None = None
