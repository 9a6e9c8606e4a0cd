"""Build the JSON body of a chat request from a call's arguments."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pydantic import JsonValue

from ._errors import ArgumentError
from ._types import Messages, Mode

# The wire's spelling of each mode. "auto" is sent too, so that it wins over a model alias.
_THINKING_TYPES: dict[str, str] = {"auto": "auto", "think": "enabled", "no_think": "disabled"}


def build_body(
    messages: Messages,
    *,
    stream: bool,
    model: str | None = None,
    mode: Mode | None = None,
    think_threshold: float | None = None,
    max_tokens: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    seed: int | None = None,
    extra: Mapping[str, JsonValue] | None = None,
) -> dict[str, JsonValue]:
    """Return the request body. Raises ArgumentError on a value no server could honour."""
    _check_threshold(think_threshold, mode)
    body: dict[str, JsonValue] = {
        "model": model,
        "messages": _message_list(messages),
        "stream": stream,
        "stream_options": {"include_usage": True} if stream else None,
        "thinking": _thinking(mode),
        "think_threshold": think_threshold,
        "max_tokens": max_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
    }
    body = {name: value for name, value in body.items() if value is not None}
    clashing = sorted(body.keys() & (extra or {}).keys())
    if clashing:
        raise ArgumentError(f"extra={clashing} repeats fields that the call already sets")
    body = {**body, **(extra or {})}
    _check_json(body)
    return body


def _check_json(body: Mapping[str, JsonValue]) -> None:
    for name, value in body.items():
        try:
            json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except (TypeError, ValueError) as exc:
            raise ArgumentError(f"{name} cannot be sent as JSON: {exc}") from exc


def _message_list(messages: Messages) -> list[JsonValue]:
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    turns: list[JsonValue] = []
    for index, turn in enumerate(messages):
        if not isinstance(turn, Mapping):
            raise ArgumentError(f"messages[{index}] is a {type(turn).__name__}, not a mapping with role and content")
        turns.append(dict(turn))
    if not turns:
        raise ArgumentError("messages is empty")
    return turns


def _thinking(mode: str | None) -> dict[str, JsonValue] | None:
    if mode is None:
        return None
    if mode not in _THINKING_TYPES:
        raise ArgumentError(f"mode={mode!r} is not one of {', '.join(_THINKING_TYPES)}")
    return {"type": _THINKING_TYPES[mode]}


def _check_threshold(threshold: float | None, mode: str | None) -> None:
    if threshold is None:
        return
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise ArgumentError(f"think_threshold={threshold!r} is not a number in [0, 1]")
    if mode in ("think", "no_think"):
        raise ArgumentError(f"think_threshold={threshold!r} asks the model to decide, mode={mode!r} forbids it")
