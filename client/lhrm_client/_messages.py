"""The turns of a conversation as the wire has them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from pydantic import JsonValue

from ._errors import ArgumentError
from ._types import Messages, ToolCall


def message_list(messages: Messages) -> list[dict[str, JsonValue]]:
    """Return the turns; a text is one turn of the user. Raises ArgumentError."""
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    if not isinstance(messages, Iterable):
        raise ArgumentError(f"messages={messages!r} is neither a text nor a list of turns")
    turns: list[dict[str, JsonValue]] = []
    for index, turn in enumerate(messages):
        if not isinstance(turn, Mapping):
            raise ArgumentError(f"messages[{index}] is a {type(turn).__name__}, not a mapping with role and content")
        turns.append(dict(turn))
    if not turns:
        raise ArgumentError("messages is empty")
    return turns


def tool_result(call: ToolCall, content: JsonValue) -> dict[str, JsonValue]:
    """Return the turn that answers `call`; content other than text is sent as JSON text. Raises ArgumentError."""
    return {"role": "tool", "tool_call_id": call.id, "content": content if isinstance(content, str) else _json(content)}


def _json(content: object) -> str:
    try:
        return json.dumps(content, ensure_ascii=False)
    except (TypeError, ValueError) as exc:
        raise ArgumentError(f"content={content!r} cannot be sent as JSON: {exc}") from exc
