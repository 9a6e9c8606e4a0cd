"""From a JSON object to a ChatRequest: every field is honoured, known to ask for nothing, or refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from lhrm_train.format import Message
from lhrm_train.tool_format import with_tools

from .answer_fields import plan_answer
from .answer_plan import AnswerPlan
from .body import JsonObject
from .checks import asks_for_nothing, missing, same, wrong_value
from .control import MODE_FIELDS, Ask, Shown, visibility
from .engine import Sampling
from .errors import InvalidRequestError, UnsupportedParameterError
from .limits import RequestLimits
from .request_fields import ANNOTATIONS, HONOURED, NEUTRAL


@dataclass(frozen=True)
class SamplingFields:
    """The sampling fields of a request; None means the checkpoint's own default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None

    def with_limit(self, max_tokens: int) -> Sampling:
        """Return the engine's parameters."""
        return Sampling(max_tokens=max_tokens, **{f.name: getattr(self, f.name) for f in fields(self)})


@dataclass(frozen=True)
class ChatRequest:
    """A chat completion request in which every field was checked; `messages` tell of the tools already."""

    model: str
    messages: tuple[Message, ...]
    stream: bool
    include_usage: bool
    continuous_usage: bool
    n: int
    max_tokens: int | None
    sampling: SamplingFields
    answer: AnswerPlan
    asks: tuple[Ask, ...]
    shown: Shown
    think_threshold: float | None


def parse_chat(body: JsonObject, limits: RequestLimits) -> ChatRequest:
    """Check every field of `body`. Raises InvalidRequestError naming the first one that cannot be taken."""
    values = _checked(body)
    answer, told = plan_answer(values, limits)
    asks = tuple(ask for name in MODE_FIELDS for ask in values.get(name, ()))
    include_usage, continuous_usage = _usage(values)
    return ChatRequest(
        model=values["model"],
        messages=with_tools(values["messages"], told),
        stream=values.get("stream", False),
        include_usage=include_usage,
        continuous_usage=continuous_usage,
        n=_choices(values, limits),
        max_tokens=_max_tokens(values),
        sampling=SamplingFields(**{f.name: values.get(f.name) for f in fields(SamplingFields)}),
        answer=answer,
        asks=asks,
        shown=_shown(asks, answer),
        think_threshold=values.get("think_threshold"),
    )


def _checked(body: JsonObject) -> dict[str, Any]:
    """Return what the honoured fields that are not null hold."""
    values: dict[str, Any] = {}
    for name, value in body.items():
        if value is None:
            continue
        if name in HONOURED:
            values[name] = HONOURED[name](name, value)
        elif name in ANNOTATIONS:
            ANNOTATIONS[name](name, value)
        elif not _is_neutral(name, value):
            raise _refusal(name)
    for name in ("model", "messages"):
        if name not in values:
            raise missing(name)
    return values


def _refusal(name: str) -> InvalidRequestError:
    shown = name[:100]
    if name in NEUTRAL:
        return UnsupportedParameterError(shown, "this server cannot honour this value.")
    return InvalidRequestError(f"Unknown parameter: {shown!r}.", param=shown, code="unknown_parameter")


def _is_neutral(name: str, value: object) -> bool:
    if asks_for_nothing(value):
        return True
    return any(same(value, neutral) for neutral in NEUTRAL.get(name, ()))


def _usage(values: Mapping[str, Any]) -> tuple[bool, bool]:
    """Return whether usage is told at the end of a stream, and whether in every chunk."""
    options: Mapping[str, bool] = values.get("stream_options", {})
    at_end, always = options.get("include_usage", False), options.get("continuous_usage_stats", False)
    if (at_end or always) and not values.get("stream", False):
        raise InvalidRequestError("stream_options: only allowed when stream is true.", param="stream_options")
    if always and not at_end:
        raise InvalidRequestError(
            "stream_options.continuous_usage_stats: only together with include_usage.",
            param="stream_options.continuous_usage_stats",
        )
    return at_end, always


def _choices(values: Mapping[str, Any], limits: RequestLimits) -> int:
    n: int = values.get("n", 1)
    if n > limits.max_choices:
        raise wrong_value("n", f"an integer between 1 and {limits.max_choices}", n)
    return n


def _max_tokens(values: Mapping[str, Any]) -> int | None:
    limits = {values[name] for name in ("max_tokens", "max_completion_tokens") if name in values}
    if len(limits) > 1:
        raise InvalidRequestError(
            "max_tokens and max_completion_tokens disagree.", param="max_tokens, max_completion_tokens"
        )
    return limits.pop() if limits else None


def _shown(asks: tuple[Ask, ...], answer: AnswerPlan) -> Shown:
    shown, param = visibility(asks)
    if shown is Shown.INLINE and answer.top_logprobs is not None:
        # Log-probabilities are aligned with the content, and there are none of the reasoning.
        both = f"{param}, logprobs"
        raise InvalidRequestError(f"{both}: log-probabilities go with an answer that stands alone.", param=both)
    return shown
