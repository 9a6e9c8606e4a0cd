"""From a JSON object to a ChatRequest: every field is honoured, known to ask for nothing, or refused by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from lhrm_train.format import Message

from .body import JsonObject
from .engine import Sampling
from .errors import InvalidRequestError, UnsupportedParameterError
from .messages import parse_messages
from .policy import BodyWish, Wish

Check = Callable[[str, object], Any]
INT32, INT64 = 2**31, 2**63
EFFORTS = MappingProxyType(
    {"auto": Wish.AUTO, "none": Wish.NO_THINK}
    | dict.fromkeys(("minimal", "low", "medium", "high", "xhigh", "max"), Wish.THINK)
)
THINKING_TYPES = MappingProxyType(
    {"enabled": Wish.THINK, "disabled": Wish.NO_THINK, "adaptive": Wish.AUTO, "auto": Wish.AUTO}
)


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
    """A chat completion request in which every field was checked."""

    model: str
    messages: tuple[Message, ...]
    stream: bool
    include_usage: bool
    max_tokens: int | None
    sampling: SamplingFields
    wishes: tuple[BodyWish, ...]
    think_threshold: float | None


def parse_chat(body: JsonObject) -> ChatRequest:
    """Check every field of `body`. Raises InvalidRequestError naming the first one that cannot be taken."""
    values: dict[str, Any] = {}
    for name, value in body.items():
        if value is None:
            continue
        if name in HONOURED:
            values[name] = HONOURED[name](name, value)
        elif name in ANNOTATIONS:
            ANNOTATIONS[name](name, value)
        elif not _asks_for_nothing(name, value):
            raise _refusal(name)
    for name in ("model", "messages"):
        if name not in values:
            raise InvalidRequestError(f"{name}: this field is required.", param=name, code="missing_required_parameter")
    return ChatRequest(
        model=values["model"],
        messages=values["messages"],
        stream=values.get("stream", False),
        include_usage=_include_usage(values),
        max_tokens=_max_tokens(values),
        sampling=SamplingFields(**{f.name: values.get(f.name) for f in fields(SamplingFields)}),
        wishes=tuple(wish for name in MODE_FIELDS for wish in values.get(name, ())),
        think_threshold=values.get("think_threshold"),
    )


def _refusal(name: str) -> InvalidRequestError:
    shown = name[:100]
    if name in NEUTRAL:
        return UnsupportedParameterError(shown, "this server cannot honour this value.")
    return InvalidRequestError(f"Unknown parameter: {shown!r}.", param=shown, code="unknown_parameter")


def _asks_for_nothing(name: str, value: object) -> bool:
    if value in ([], {}):
        return True
    return any(type(value) is type(neutral) and value == neutral for neutral in NEUTRAL.get(name, ()))


def _include_usage(values: Mapping[str, Any]) -> bool:
    wanted = bool(values.get("stream_options", False))
    if wanted and not values.get("stream", False):
        raise InvalidRequestError("stream_options: only allowed when stream is true.", param="stream_options")
    return wanted


def _max_tokens(values: Mapping[str, Any]) -> int | None:
    limits = {values[name] for name in ("max_tokens", "max_completion_tokens") if name in values}
    if len(limits) > 1:
        raise InvalidRequestError(
            "max_tokens and max_completion_tokens disagree.", param="max_tokens, max_completion_tokens"
        )
    return limits.pop() if limits else None


def _wrong_type(param: str, expected: str) -> InvalidRequestError:
    return InvalidRequestError(f"{param}: expected {expected}.", param=param, code="invalid_type")


def _text(param: str, value: object) -> str:
    if not isinstance(value, str):
        raise _wrong_type(param, "a string")
    return value


def _boolean(param: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong_type(param, "a boolean")
    return value


def _object(param: str, value: object) -> JsonObject:
    if not isinstance(value, dict):
        raise _wrong_type(param, "an object")
    return value


def _number(low: float, high: float, *, above: bool = False) -> Check:
    """Return the check for a number in [low, high], or in (low, high] when it must be `above` low."""

    def check(param: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _wrong_type(param, "a number")
        # The comparison comes before float(), which an integer of 400 digits would break.
        if not low <= value <= high or (above and value == low):
            bounds = f"{'more than' if above else 'at least'} {low:g} and at most {high:g}"
            raise InvalidRequestError(f"{param}: must be {bounds}.", param=param)
        return float(value)

    return check


def _integer(low: int, high: int) -> Check:
    def check(param: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong_type(param, "an integer")
        if not low <= value <= high:
            raise InvalidRequestError(f"{param}: must be between {low} and {high}.", param=param)
        return value

    return check


def _stream_options(param: str, value: object) -> bool:
    options = _object(param, value)
    for name, option in options.items():
        if option is None:
            continue
        if name not in ("include_usage", "continuous_usage_stats", "include_obfuscation"):
            raise InvalidRequestError(f"Unknown parameter: {param}.{name[:100]}.", param=f"{param}.{name[:100]}")
        if _boolean(f"{param}.{name}", option) and name != "include_usage":
            raise UnsupportedParameterError(f"{param}.{name}", "this server cannot honour this value.")
    return options.get("include_usage") is True


def _effort(param: str, value: object) -> tuple[BodyWish, ...]:
    effort = _text(param, value)
    if effort not in EFFORTS:
        raise InvalidRequestError(f"{param}: expected one of {', '.join(EFFORTS)}.", param=param)
    return (BodyWish(param, EFFORTS[effort]),)


def _template_arguments(param: str, value: object) -> tuple[BodyWish, ...]:
    wishes = []
    for name, argument in _object(param, value).items():
        place = f"{param}.{name[:100]}"
        if argument is None or (argument in ([], {})):
            continue
        if name not in ("enable_thinking", "thinking"):
            raise UnsupportedParameterError(place, "only enable_thinking and thinking are supported.")
        wishes.append(BodyWish(place, Wish.THINK if _boolean(place, argument) else Wish.NO_THINK))
    return tuple(wishes)


def _thinking(param: str, value: object) -> tuple[BodyWish, ...]:
    options = _object(param, value)
    for name, option in options.items():
        if name != "type" and option is not None:
            raise UnsupportedParameterError(f"{param}.{name[:100]}", "this server does not support this option.")
    kind = options.get("type")
    if kind is None:
        return ()
    if not isinstance(kind, str) or kind not in THINKING_TYPES:
        raise InvalidRequestError(f"{param}.type: expected one of {', '.join(THINKING_TYPES)}.", param=f"{param}.type")
    return (BodyWish(f"{param}.type", THINKING_TYPES[kind]),)


MODE_FIELDS: Mapping[str, Check] = MappingProxyType(
    {"reasoning_effort": _effort, "chat_template_kwargs": _template_arguments, "thinking": _thinking}
)
HONOURED: Mapping[str, Check] = MappingProxyType(
    {
        **MODE_FIELDS,
        "think_threshold": _number(0, 1),
        "model": _text,
        "messages": parse_messages,
        "stream": _boolean,
        "stream_options": _stream_options,
        "max_tokens": _integer(1, INT64 - 1),
        "max_completion_tokens": _integer(1, INT64 - 1),
        "temperature": _number(0, 2),
        "top_p": _number(0, 1, above=True),
        "top_k": _integer(-1, INT32 - 1),
        "min_p": _number(0, 1),
        "presence_penalty": _number(-2, 2),
        "frequency_penalty": _number(-2, 2),
        # Beyond these, 32-bit logits overflow inside the engine and the batch has NaNs.
        "repetition_penalty": _number(0.01, 100),
        "seed": _integer(-INT64, INT64 - 1),
    }
)
# Labels for the caller's own books; nothing about the answer depends on them.
ANNOTATIONS: Mapping[str, Check] = MappingProxyType(
    {"user": _text, "safety_identifier": _text, "prompt_cache_key": _text, "metadata": _object}
)
# Fields that are not supported, each with the values that ask for nothing (null, [] and {} always do).
NEUTRAL: Mapping[str, tuple[object, ...]] = MappingProxyType(
    {
        "n": (1,),
        "best_of": (1,),
        "stop": (),
        "logprobs": (False,),
        "top_logprobs": (0,),
        "logit_bias": (),
        "tools": (),
        "tool_choice": ("none", "auto"),
        "parallel_tool_calls": (True, False),
        "functions": (),
        "function_call": ("none", "auto"),
        "response_format": ({"type": "text"},),
        "modalities": (["text"],),
        "audio": (),
        "prediction": (),
        "web_search_options": (),
        "verbosity": ("medium",),
        "store": (False,),
        "service_tier": ("auto", "default"),
        "prompt_cache_retention": ("in_memory", "in-memory"),
        "prompt_cache_options": (),
        "moderation": (),
        "reasoning": (),
        "enable_thinking": (),
        "thinking_budget": (),
        "thinking_token_budget": (-1,),
        "include_reasoning": (True,),
        "separate_reasoning": (True,),
        "min_tokens": (0,),
        "ignore_eos": (False,),
        "use_beam_search": (False,),
        "length_penalty": (1, 1.0),
        "stop_token_ids": (),
        "bad_words": (),
        "allowed_token_ids": (),
        "logits_processors": (),
        "prompt_logprobs": (),
        "skip_special_tokens": (),
        "spaces_between_special_tokens": (),
        "include_stop_str_in_output": (False,),
        "echo": (False,),
        "add_generation_prompt": (True,),
        "continue_final_message": (False,),
        "add_special_tokens": (False,),
        "documents": (),
        "chat_template": (),
        "structured_outputs": (),
        "priority": (0,),
        "request_id": (),
        "return_token_ids": (False,),
        "return_tokens_as_token_ids": (False,),
        "truncate_prompt_tokens": (-1,),
        "cache_salt": (),
        "kv_transfer_params": (),
        "vllm_xargs": (),
    }
)
