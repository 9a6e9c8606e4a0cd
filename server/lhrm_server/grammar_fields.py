"""The fields that say what form the answer must have, as one grammar."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from .body import JsonObject
from .checks import (
    Check,
    Schema,
    boolean,
    filled_text,
    json_object,
    list_of,
    missing,
    nullable,
    one_of,
    record,
    text,
    wrong_type,
    wrong_value,
)
from .engine import Grammar
from .errors import InvalidRequestError

ANY_OBJECT: Schema = {"type": "object"}
MOST_NESTED = 64
NAME = r"^[a-zA-Z0-9_-]{1,64}$"


def _label(param: str, value: str) -> str:
    if not 1 <= len(value) <= 64 or not all(c.isascii() and (c.isalnum() or c in "_-") for c in value):
        raise wrong_value(param, "1 to 64 of the characters A-Z a-z 0-9 _ -", value)
    return value


label = text.then(_label).described({"type": "string", "pattern": NAME})
"""Takes the name of a function or of a schema."""


def json_grammar(schema: Schema) -> Grammar:
    """Return the grammar of texts that are JSON and follow a schema."""
    return Grammar("json", json.dumps(schema, ensure_ascii=False, separators=(",", ":")))


def _shallow(param: str, value: JsonObject) -> JsonObject:
    """Refuse a schema that is nested so deep that whoever walks through it runs out of stack."""
    level: list[object] = [value]
    for _ in range(MOST_NESTED):
        level = [part for each in level for part in _parts_of(each)]
        if not level:
            return value
    raise InvalidRequestError(f"{param}: nested more than {MOST_NESTED} levels deep.", param=param)


def _parts_of(value: object) -> list[object]:
    parts = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [part for part in parts if isinstance(part, dict | list)]


json_schema: Check[JsonObject] = json_object.then(_shallow)
"""Takes a JSON schema that the client made."""
_FORMATS = ("text", "json_object", "json_schema")
_schema_format = record(
    # Strict or not, the grammar holds the answer to the schema.
    {"name": label, "schema": json_schema, "strict": boolean},
    required=("name", "schema"),
)


_format = record({"type": one_of(_FORMATS), "json_schema": _schema_format}, required=("type",))


def _format_grammar(param: str, value: Mapping[str, Any]) -> Grammar | None:
    kind, schema = value["type"], value.get("json_schema")
    if kind != "json_schema":
        if schema is not None:
            raise InvalidRequestError(
                f"{param}.json_schema: only with the type json_schema, not {kind}.", param=f"{param}.json_schema"
            )
        return json_grammar(ANY_OBJECT) if kind == "json_object" else None
    if schema is None:
        raise missing(f"{param}.json_schema")
    return json_grammar(schema["schema"])


response_format: Check[Grammar | None] = _format.then(_format_grammar).described(
    {
        "anyOf": [
            {
                **_format.schema,
                "properties": {"type": {"enum": ["text", "json_object"]}, "json_schema": {"type": "null"}},
            },
            {
                **_format.schema,
                "properties": {"type": {"const": "json_schema"}, "json_schema": _schema_format.schema},
                "required": ["type", "json_schema"],
            },
        ]
    },
)


def _json_schema(param: str, value: object) -> Grammar:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise wrong_value(param, "a JSON schema, as an object or as JSON text", value) from None
    if not isinstance(value, dict):
        raise wrong_type(param, "a JSON schema, as an object or as JSON text", value)
    return json_grammar(json_schema(param, value))


_choices = list_of(filled_text, low=1, what="choices")
_GRAMMARS: Mapping[str, Check[Grammar]] = MappingProxyType(
    {
        "json": Check(_json_schema, {"type": ["object", "string"]}),
        "regex": filled_text.then(lambda _, pattern: Grammar("regex", pattern)),
        "choice": _choices.then(lambda _, choices: Grammar("choice", json.dumps(choices, ensure_ascii=False))),
        "grammar": filled_text.then(lambda _, rules: Grammar("grammar", rules)),
    }
)


def _the_grammar(param: str, grammars: Mapping[str, Any]) -> Grammar | None:
    if len(grammars) > 1:
        both = ", ".join(f"{param}.{name}" for name in grammars)
        raise InvalidRequestError(f"{param}: exactly one kind can be given, not {both}.", param=both)
    return next(iter(grammars.values()), None)


_structured = record(_GRAMMARS)


def _one_kind(kind: str) -> Schema:
    """Return the schema of an object that has this kind of grammar and no other."""
    others = {other: {"type": "null"} for other in _GRAMMARS}
    return {**_structured.schema, "properties": {**others, kind: nullable(_GRAMMARS[kind].schema)}}


structured_outputs: Check[Grammar | None] = _structured.then(_the_grammar).described(
    {"anyOf": [_one_kind(kind) for kind in _GRAMMARS]}
)


def answer_grammar(values: Mapping[str, Any]) -> tuple[Grammar | None, str | None]:
    """Return the grammar that a request asks for and the field that does. Raises InvalidRequestError on two."""
    named = [name for name in ("response_format", "structured_outputs") if values.get(name) is not None]
    if len(named) > 1:
        both = ", ".join(named)
        raise InvalidRequestError(f"Only one of these can shape the answer: {both}.", param=both)
    return (values[named[0]], named[0]) if named else (None, None)
