"""Scorer `json`: the answer is the expected JSON value, or one that satisfies a JSON Schema."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

from lhrm_train.problems import Problem
from lhrm_train.rewards.base import ScoreError, require, required_mapping

_FENCED = re.compile(r"```([^\n`]*)\n(.*?)```", re.DOTALL)
# Of numbers beyond what Decimal holds, and of brackets nested too deep to read.
_NOT_JSON = (ValueError, ArithmeticError, RecursionError)


def _number(text: str) -> tuple[str, Decimal]:
    # A tuple is nothing that JSON can hold, so a number equals only a number: true is not 1, yet 1.0 is.
    return "number", Decimal(text)


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _comparable(text: str) -> Any:
    return json.loads(text, parse_int=_number, parse_float=_number, parse_constant=_refuse)


def _satisfies(value: Any, schema: dict[str, Any]) -> bool:
    import jsonschema
    from jsonschema.validators import validator_for
    from referencing import Registry

    kind = validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        kind.check_schema(schema)
    except jsonschema.SchemaError as exc:
        raise ScoreError(f"scorer 'json': fields['json_schema'] is not a JSON Schema: {exc.message}") from exc
    # An empty registry: a reference to another document fails instead of being fetched.
    return bool(kind(schema, registry=Registry()).is_valid(value))


def json_value(problem: Problem, answer: str) -> float:
    """Return 1 when `answer` is JSON that satisfies ``fields["json_schema"]`` or else equals the reference.

    The JSON may stand in a fenced block, marked json or not at all; the last such block counts and the text
    around it is ignored. The order of keys is irrelevant, numbers compare by value. Where there is a schema, the
    reference is not looked at.

    Raises ScoreError when the reference is not JSON or the schema not a schema, ConfigError without jsonschema.
    """
    blocks = [text for language, text in _FENCED.findall(answer) if language.strip().lower() in ("", "json")]
    text = blocks[-1] if blocks else answer
    try:
        found, value = _comparable(text), json.loads(text)
    except _NOT_JSON:
        return 0.0
    if "json_schema" in problem.fields:
        require("jsonschema", "json")
        return float(_satisfies(value, required_mapping(problem, "json_schema", "json")))
    try:
        reference = _comparable(problem.reference)
    except _NOT_JSON as exc:
        raise ScoreError(f"scorer 'json': reference {problem.reference!r} is not JSON: {exc}") from exc
    return float(found == reference)
