"""The fields about tools: which there are, whether one must be called, and the grammar that a must comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lhrm_train.tool_format import Tool

from .answer_plan import ToolPlan
from .checks import Check, Schema, boolean, list_of, one_of, record, text, wrong_type, wrong_value
from .engine import Grammar
from .errors import InvalidRequestError, UnsupportedParameterError
from .grammar_fields import json_grammar, json_schema, label

MOST_TOOLS = 128
NO_PARAMETERS: Schema = {"type": "object", "properties": {}}
# In these a JSON schema holds data, in which "$ref" is no reference.
DATA_KEYWORDS = ("const", "enum", "default", "examples")


@dataclass(frozen=True)
class ToolDefinition:
    """One entry of `tools`. `strict` promises arguments that follow the schema."""

    tool: Tool
    strict: bool


@dataclass(frozen=True)
class ToolUse:
    """What the fields about tools come to: `told` goes into the prompt, `plan` and `grammar` into the answer."""

    told: tuple[Tool, ...] = ()
    plan: ToolPlan | None = None
    grammar: Grammar | None = None


def _definition(_: str, value: Mapping[str, Any]) -> ToolDefinition:
    function = value["function"]
    parameters = function.get("parameters", NO_PARAMETERS)
    return ToolDefinition(Tool(function["name"], function.get("description"), parameters), bool(function.get("strict")))


def _distinct(param: str, tools: tuple[ToolDefinition, ...]) -> tuple[ToolDefinition, ...]:
    names = [definition.tool.name for definition in tools]
    for position, name in enumerate(names):
        if name in names[:position]:
            raise wrong_value(f"{param}[{position}].function.name", "a name that no other tool has", name)
    return tools


_function = record(
    {"name": label, "description": text, "parameters": json_schema, "strict": boolean}, required=("name",)
)
_tool = record({"type": one_of(("function",)), "function": _function}, required=("type", "function"))
tools: Check[tuple[ToolDefinition, ...]] = list_of(_tool.then(_definition), high=MOST_TOOLS, what="tools").then(
    _distinct
)


@dataclass(frozen=True)
class ToolChoice:
    """Whether tools may or must be called; `name` is the function that must be."""

    kind: str
    name: str | None = None


CHOICES = ("none", "auto", "required")
_named = record(
    {"type": one_of(("function",)), "function": record({"name": text}, required=("name",))},
    required=("type", "function"),
)


def _choice(param: str, value: object) -> ToolChoice:
    if isinstance(value, str):
        return ToolChoice(one_of(CHOICES)(param, value))
    if not isinstance(value, dict):
        raise wrong_type(param, f"one of {', '.join(CHOICES)}, or an object that names a function", value)
    if value.get("type") in ("allowed_tools", "custom"):
        raise UnsupportedParameterError(f"{param}.type", "only function is supported.")
    return ToolChoice("named", _named(param, value)["function"]["name"])


tool_choice: Check[ToolChoice] = Check(_choice, {"anyOf": [{"enum": list(CHOICES)}, _named.schema]})


def plan_tools(values: Mapping[str, Any], *, trained: bool) -> ToolUse:
    """Return what `tools`, `tool_choice` and `parallel_tool_calls` come to. Raises InvalidRequestError.

    `trained` tells whether the model learned to call tools. Without tools, `none` and `auto` ask for nothing, and
    with `none` the model is not told of any.
    """
    definitions: Sequence[ToolDefinition] = values.get("tools", ())
    choice: ToolChoice = values.get("tool_choice", ToolChoice("auto"))
    known = {definition.tool.name: definition.tool for definition in definitions}
    if not definitions and choice.kind in ("required", "named"):
        raise InvalidRequestError("tool_choice: there are no tools to call.", param="tool_choice")
    if not definitions or choice.kind == "none":
        return ToolUse()
    told = tuple(known.values())
    if choice.kind == "auto":
        _check_auto(definitions, values.get("parallel_tool_calls", True), trained)
        return ToolUse(told, ToolPlan("auto"))
    if choice.kind == "required":
        return ToolUse(told, ToolPlan("required"), _calls_grammar(told, values.get("parallel_tool_calls", True)))
    if choice.name not in known:
        raise wrong_value("tool_choice.function.name", f"one of {', '.join(known)}", choice.name)
    return ToolUse(told, ToolPlan("named", choice.name), json_grammar(known[choice.name].parameters))


def _check_auto(definitions: Sequence[ToolDefinition], parallel: bool, trained: bool) -> None:
    """Refuse what only a grammar could promise, where the model itself writes its calls."""
    if not trained:
        raise UnsupportedParameterError(
            "tools",
            "this model was not trained to call tools, so it cannot choose to; with tool_choice required or a named "
            "function it works.",
        )
    if not parallel:
        raise UnsupportedParameterError(
            "parallel_tool_calls", "false can be kept only with tool_choice required or a named function."
        )
    for position, definition in enumerate(definitions):
        if definition.strict:
            raise UnsupportedParameterError(
                f"tools[{position}].function.strict",
                "true can be kept only with tool_choice required or a named function.",
            )


def _calls_grammar(told: Sequence[Tool], parallel: bool) -> Grammar:
    """Return the grammar of a list of calls, each ``{"name", "parameters"}``.

    Parameters that refer to parts of themselves lie in the root's ``$defs``: the grammar's compiler finds no place
    whose path leads through a list.
    """
    kinds: list[Schema] = []
    definitions: dict[str, object] = {}
    for tool in told:
        place = f"#/$defs/{tool.name}"
        parameters = _moved(tool.parameters, place)
        if parameters != tool.parameters:
            definitions[tool.name], parameters = parameters, {"$ref": place}
        kinds.append(
            {
                "type": "object",
                "properties": {"name": {"const": tool.name}, "parameters": parameters},
                "required": ["name", "parameters"],
                "additionalProperties": False,
            }
        )
    schema: dict[str, object] = {"type": "array", "minItems": 1, "items": {"anyOf": kinds}}
    if definitions:
        schema["$defs"] = definitions
    return json_grammar(schema if parallel else {**schema, "maxItems": 1})


def _moved(schema: object, place: str) -> object:
    """Return a schema whose references within itself still hold when it lies at `place` of another one."""
    if isinstance(schema, list):
        return [_moved(part, place) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    return {
        key: f"{place}{part[1:]}"
        if key == "$ref" and isinstance(part, str) and part.startswith("#")
        else part
        if key in DATA_KEYWORDS
        else _moved(part, place)
        for key, part in schema.items()
    }
