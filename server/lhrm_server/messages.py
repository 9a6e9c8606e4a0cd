"""From the `messages` field to conversation turns of plain text.

Reasoning in an assistant's history is accepted and not rendered, so that a conversation costs the same
tokens in every mode.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from lhrm_train.format import Message
from lhrm_train.tool_format import ToolCall, render_turn

from .body import JsonObject
from .checks import Check, Schema, list_of, one_of, record, text, wrong_type, wrong_value
from .errors import InvalidRequestError, UnsupportedParameterError

# The rendered role of each role that is taken.
RENDERED_ROLES: Mapping[str, str] = MappingProxyType(
    {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
)


def _text_type(param: str, value: str) -> str:
    if value != "text":
        raise UnsupportedParameterError(param, "only text parts are supported.")
    return value


_part = record({"type": text.then(_text_type).described({"const": "text"}), "text": text}, required=("type", "text"))
_parts = list_of(_part, what="text parts").then(lambda _, parts: "".join(part["text"] for part in parts))


def _content(param: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return _parts(param, value)
    raise wrong_type(param, "a string or a list of text parts", value)


content = Check(_content, {"anyOf": [text.schema, _parts.schema]})


def _arguments(param: str, value: str) -> str:
    try:
        is_object = isinstance(json.loads(value), dict)
    except (ValueError, RecursionError):
        is_object = False
    if not is_object:
        raise wrong_value(param, "a JSON object as a string", value)
    return value


_arguments_text = text.then(_arguments).described(
    {"type": "string", "contentMediaType": "application/json", "pattern": r"^\s*\{[\s\S]*\}\s*$"},
)
_call = record(
    {
        "id": text,
        "type": one_of(("function",)),
        "function": record({"name": text, "arguments": _arguments_text}, required=("name", "arguments")),
    },
    required=("id", "type", "function"),
)
_ROLE = one_of(tuple(RENDERED_ROLES))
_PLAIN = record({"role": _ROLE, "content": content}, required=("role", "content"))
_MEMBERS: Mapping[str, Check[dict[str, Any]]] = MappingProxyType(
    {
        **dict.fromkeys(("system", "developer", "user"), _PLAIN),
        # An assistant turn without an answer is what a truncated reply looks like when it is sent back.
        "assistant": record(
            {
                "role": _ROLE,
                "content": content,
                "reasoning": text,
                "reasoning_content": text,
                "tool_calls": list_of(_call, what="tool calls"),
            },
            required=("role",),
        ),
        "tool": record(
            {"role": _ROLE, "content": content, "tool_call_id": text}, required=("role", "content", "tool_call_id")
        ),
    }
)


def _message(param: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong_type(param, "an object", value)
    role = value.get("role")
    if role == "function":
        raise UnsupportedParameterError(f"{param}.role", "the role 'function' is not supported; send 'tool'.")
    return _MEMBERS[_ROLE(f"{param}.role", role)](param, value)


def _message_schema() -> Schema:
    kinds: list[JsonObject] = []
    for roles in (("system", "developer", "user"), ("assistant",), ("tool",)):
        schema = _MEMBERS[roles[0]].schema
        properties = schema["properties"]
        if isinstance(properties, dict):
            kinds.append({**schema, "properties": {**properties, "role": {"enum": list(roles)}}})
    return {"anyOf": kinds}


def _turns(param: str, messages: Sequence[dict[str, Any]]) -> tuple[Message, ...]:
    """Render the messages. The results of one turn's calls are put in the order of the calls, whose ids nobody sees.

    Raises InvalidRequestError on a result that answers no call, or one that was answered.
    """
    open_calls: dict[str, int] = {}
    turns: list[Message] = []
    results: list[tuple[int, Message]] = []
    made = 0
    for position, message in enumerate(messages):
        role = message["role"]
        if role == "tool":
            place = f"{param}[{position}].tool_call_id"
            order = _answered(place, message["tool_call_id"], open_calls)
            results.append((order, Message("tool", message["content"])))
            continue
        turns += [turn for _, turn in sorted(results, key=lambda result: result[0])]
        results = []
        calls = message.get("tool_calls", ())
        for index, call in enumerate(calls):
            place = f"{param}[{position}].tool_calls[{index}].id"
            if call["id"] in [other["id"] for other in calls[:index]]:
                raise wrong_value(place, "an id that no other call of this message has", call["id"])
            open_calls[call["id"]] = made = made + 1
        functions = [ToolCall(**call["function"]) for call in calls]
        turns.append(Message(RENDERED_ROLES[role], render_turn(message.get("content", ""), functions)))
    return (*turns, *(turn for _, turn in sorted(results, key=lambda result: result[0])))


def _answered(place: str, call_id: str, open_calls: dict[str, int]) -> int:
    if call_id not in open_calls:
        raise InvalidRequestError(
            f"{place}: no call of an earlier assistant message with this id ({call_id[:60]!r}) waits for a result.",
            param=place,
        )
    return open_calls.pop(call_id)


_list = list_of(Check(_message, _message_schema()), low=1, what="messages")
parse_messages: Check[tuple[Message, ...]] = _list.then(_turns)
"""Takes the field and returns the turns; errors name the message and field that cannot be taken."""
