"""Say in the wire's words what a caller says with pydantic models: tools, the tool to call, the shape of an answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from pydantic import BaseModel, JsonValue
from pydantic.errors import PydanticUserError

from ._errors import ArgumentError

_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]")
_MOST_NAME_CHARS = 64
_CHOICES = ("auto", "none", "required")


def tool_fields(tools: object) -> list[JsonValue] | None:
    """Return the body's ``tools``. Raises ArgumentError naming the one that is no tool."""
    if tools is None:
        return None
    if isinstance(tools, str) or not isinstance(tools, Sequence):
        raise ArgumentError(f"tools={tools!r} is not a list of pydantic models and mappings")
    return [_tool(tool, f"tools[{index}]") for index, tool in enumerate(tools)]


def tool_choice_field(choice: object) -> JsonValue:
    """Return the body's ``tool_choice``. Raises ArgumentError."""
    if _is_model(choice):
        return {"type": "function", "function": {"name": schema_name(choice)}}
    if isinstance(choice, Mapping):
        return dict(choice)
    if choice is None or (isinstance(choice, str) and choice in _CHOICES):
        return choice
    raise ArgumentError(f"tool_choice={choice!r} is not {', '.join(_CHOICES)}, a pydantic model or a mapping")


def response_format_field(answer_type: object) -> JsonValue:
    """Return the body's ``response_format``. Raises ArgumentError."""
    if answer_type is None:
        return None
    if _is_model(answer_type):
        name, schema = schema_name(answer_type), _json_schema(answer_type, "answer_type")
    elif isinstance(answer_type, Mapping):
        name, schema = "answer", dict(answer_type)
    else:
        raise ArgumentError(f"answer_type={answer_type!r} is neither a pydantic model nor a JSON schema")
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}


def schema_name(model: type[BaseModel]) -> str:
    """Return the name of a model's class as the wire allows it: ``Box[int]`` is Box_int_."""
    return _NOT_IN_NAMES.sub("_", model.__name__)[:_MOST_NAME_CHARS]


def _tool(tool: object, place: str) -> JsonValue:
    if isinstance(tool, Mapping):
        return dict(tool)
    if not _is_model(tool):
        raise ArgumentError(f"{place}={tool!r} is neither a pydantic model nor a mapping")
    schema = _json_schema(tool, place)
    about = schema.pop("description", None)
    function: dict[str, JsonValue] = {"name": schema_name(tool), "parameters": schema}
    if about is not None:
        function["description"] = about
    return {"type": "function", "function": function}


def _is_model(value: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(value, type) and issubclass(value, BaseModel)


def _json_schema(model: type[BaseModel], place: str) -> dict[str, Any]:
    try:
        return model.model_json_schema()
    except PydanticUserError as exc:
        raise ArgumentError(f"{place}={model.__name__} has no JSON schema: {exc.message}") from exc
