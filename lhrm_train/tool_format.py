"""How tools look in a prompt: definitions in the system message, earlier calls in the assistant's turn.

Calls are Hermes blocks: JSON between ``<tool_call>`` and ``</tool_call>``, each on lines of its own. These marks are
text, not tokens of the mode format. Results are turns of the role ``tool`` and are rendered as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .format import Message

TOOL_CALL_FORMAT = "hermes"
"""The name of this format in a checkpoint's manifest."""
CALL_OPEN, CALL_CLOSE = "<tool_call>", "</tool_call>"


@dataclass(frozen=True)
class Tool:
    """A function that the model may call; `parameters` is the JSON schema of its arguments, an object."""

    name: str
    description: str | None
    parameters: Mapping[str, object]


@dataclass(frozen=True)
class ToolCall:
    """A call in an earlier turn; `arguments` is a JSON object as text, rendered as it was written."""

    name: str
    arguments: str


def render_tools(tools: Sequence[Tool]) -> str:
    """Return the part of the system message that tells which tools there are and how to call them."""
    shape = f'{CALL_OPEN}\n{{"name": "<function>", "arguments": {{"<parameter>": <value>}}}}\n{CALL_CLOSE}'
    return (
        "You can call functions. Their definitions, one JSON object in each line:\n"
        f"<tools>\n{chr(10).join(map(_definition, tools))}\n</tools>\n"
        "To call a function, answer with one block of this shape for each call; results come back in tool turns:\n"
        f"{shape}"
    )


def render_turn(content: str, calls: Sequence[ToolCall]) -> str:
    """Return the text of an assistant's turn: its content, then its calls."""
    blocks = [
        f'{CALL_OPEN}\n{{"name": {_json(call.name)}, "arguments": {call.arguments}}}\n{CALL_CLOSE}' for call in calls
    ]
    return "\n".join([*([content] if content else []), *blocks])


def with_tools(messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[Message, ...]:
    """Return the conversation with the tools told at the end of its leading system message, or in a new one."""
    if not tools:
        return tuple(messages)
    text = render_tools(tools)
    if messages and messages[0].role == "system":
        first = messages[0].content
        return (Message("system", f"{first}\n\n{text}" if first else text), *messages[1:])
    return (Message("system", text), *messages)


def _definition(tool: Tool) -> str:
    function: dict[str, object] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    return _json({"type": "function", "function": {**function, "parameters": tool.parameters}})


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
