"""Build a chat call from its arguments."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias, Unpack, cast, get_args

from pydantic import JsonValue

from ._call import CHAT_PATH, Call, Deadline, checked_header
from ._errors import ArgumentError
from ._messages import message_list
from ._options import ChatOptions
from ._schema import response_format_field, tool_choice_field, tool_fields
from ._types import Messages

# The wire's spelling of each mode. "auto" is sent too, so that it wins over a model alias.
_THINKING_TYPES: dict[str, str] = {"auto": "auto", "think": "enabled", "no_think": "disabled"}
# Options that the body has under the same name; the server judges their values.
_Same: TypeAlias = Literal["model", "max_tokens", "temperature", "top_p", "seed", "n"]
_SAME_ON_THE_WIRE: tuple[_Same, ...] = get_args(_Same)


def build_call(messages: Messages, *, stream: bool, **options: Unpack[ChatOptions]) -> Call:
    """Return the call; its deadline starts here. Raises ArgumentError on a value no server could honour."""
    unknown = sorted(options.keys() - ChatOptions.__annotations__.keys())
    if unknown:
        raise TypeError(f"unknown option: {', '.join(unknown)}")
    body: dict[str, JsonValue] = {
        "messages": [*message_list(messages)],
        "stream": stream,
        "stream_options": {"include_usage": True} if stream else None,
        **thinking_fields(options.get("mode"), options.get("think_threshold"), options.get("thinking_budget")),
        **cast("dict[str, JsonValue]", {name: options[name] for name in _SAME_ON_THE_WIRE if name in options}),
        "stop": _stop(options.get("stop")),
        "tools": tool_fields(options.get("tools")),
        "tool_choice": tool_choice_field(options.get("tool_choice")),
        "response_format": response_format_field(options.get("answer_type")),
    }
    request_id = options.get("request_id")
    return Call(
        "POST",
        CHAT_PATH,
        body=_with_extra({name: value for name, value in body.items() if value is not None}, options.get("extra")),
        headers={} if request_id is None else {"X-Request-Id": checked_header("request_id", request_id)},
        deadline=Deadline(options.get("deadline_s")),
    )


def thinking_fields(mode: object, threshold: object, budget: object) -> dict[str, JsonValue]:
    """Return the body's fields that steer the thinking, without those left to the server. Raises ArgumentError."""
    fields: dict[str, JsonValue] = {}
    if mode is not None:
        if not isinstance(mode, str) or mode not in _THINKING_TYPES:
            raise ArgumentError(f"mode={mode!r} is not one of {', '.join(_THINKING_TYPES)}")
        fields["thinking"] = {"type": _THINKING_TYPES[mode]}
    if threshold is not None:
        fields["think_threshold"] = _threshold(threshold, mode)
    if budget is not None:
        if isinstance(budget, bool) or not isinstance(budget, int) or budget < -1:
            raise ArgumentError(f"thinking_budget={budget!r} is not a number of tokens, or -1 for no limit")
        fields["thinking_budget"] = budget
    return fields


def _threshold(threshold: object, mode: object) -> float:
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise ArgumentError(f"think_threshold={threshold!r} is not a number in [0, 1]")
    if mode in ("think", "no_think"):
        raise ArgumentError(f"think_threshold={threshold!r} asks the model to decide, mode={mode!r} forbids it")
    return threshold


def _stop(stop: object) -> JsonValue:
    if stop is None or isinstance(stop, str):
        return stop
    if isinstance(stop, Sequence) and all(isinstance(text, str) for text in stop):
        return list(stop)
    raise ArgumentError(f"stop={stop!r} is neither a text nor a list of texts")


def _with_extra(body: dict[str, JsonValue], extra: Mapping[str, JsonValue] | None) -> dict[str, JsonValue]:
    if extra is not None and not isinstance(extra, Mapping):
        raise ArgumentError(f"extra={extra!r} is not a mapping of body fields")
    clashing = sorted(body.keys() & (extra or {}).keys())
    if clashing:
        raise ArgumentError(f"extra={clashing} repeats fields that the call already sets")
    whole = {**body, **(extra or {})}
    for name, value in whole.items():
        try:
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError) as exc:
            raise ArgumentError(f"{name} cannot be sent as JSON: {exc}") from exc
    return whole
