"""From the `messages` field to conversation turns of plain text.

Reasoning in an assistant's history is accepted and not rendered, so that a conversation costs the same
tokens in every mode.
"""

from __future__ import annotations

from lhrm_train.format import Message

from .errors import InvalidRequestError, UnsupportedParameterError

# The rendered role of each role that is taken.
ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
UNRENDERED = ("reasoning", "reasoning_content")


def parse_messages(param: str, value: object) -> tuple[Message, ...]:
    """Return the turns. Raises InvalidRequestError naming the message and field that cannot be taken."""
    if not isinstance(value, list):
        raise InvalidRequestError(f"{param}: expected a list of messages.", param=param, code="invalid_type")
    if not value:
        raise InvalidRequestError(f"{param}: at least one message is needed.", param=param, code="empty_array")
    return tuple(_message(f"{param}[{position}]", message) for position, message in enumerate(value))


def _message(param: str, value: object) -> Message:
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{param}: expected an object.", param=param, code="invalid_type")
    role = value.get("role")
    if role in ("tool", "function"):
        raise UnsupportedParameterError(f"{param}.role", f"the role {role!r} is not supported.")
    if not isinstance(role, str) or role not in ROLES:
        raise InvalidRequestError(f"{param}.role: expected one of {', '.join(ROLES)}.", param=f"{param}.role")
    for name, field in value.items():
        _check_field(f"{param}.{name[:100]}", name, field, role)
    return Message(ROLES[role], _content(f"{param}.content", value.get("content"), role))


def _check_field(param: str, name: str, value: object, role: str) -> None:
    if name in ("role", "content") or value is None or value in ([], {}):
        return
    if name in UNRENDERED and role == "assistant":
        if not isinstance(value, str):
            raise InvalidRequestError(f"{param}: expected a string.", param=param, code="invalid_type")
        return
    raise UnsupportedParameterError(param, "this field of a message is not supported.")


def _content(param: str, value: object, role: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_part(f"{param}[{position}]", part) for position, part in enumerate(value))
    if value is None and role == "assistant":
        # An assistant turn without an answer is what a truncated reply looks like when it is sent back.
        return ""
    raise InvalidRequestError(f"{param}: expected a string or a list of text parts.", param=param, code="invalid_type")


def _part(param: str, value: object) -> str:
    if not isinstance(value, dict):
        raise InvalidRequestError(f"{param}: expected an object.", param=param, code="invalid_type")
    if value.get("type") != "text":
        raise UnsupportedParameterError(f"{param}.type", "only text parts are supported.")
    for name, field in value.items():
        if name not in ("type", "text") and field is not None and field not in ([], {}):
            raise UnsupportedParameterError(f"{param}.{name[:100]}", "this field of a text part is not supported.")
    text = value.get("text")
    if not isinstance(text, str):
        raise InvalidRequestError(f"{param}.text: expected a string.", param=f"{param}.text", code="invalid_type")
    return text
