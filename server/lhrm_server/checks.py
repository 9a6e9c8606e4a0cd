"""Checks of single JSON values: each takes a value or refuses it by name, and says as a JSON schema what it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from .body import JsonObject
from .errors import InvalidRequestError, UnsupportedParameterError

INT32, INT64 = 2**31, 2**63
SHOWN_CHARACTERS = 60
T = TypeVar("T")
U = TypeVar("U")
Schema = Mapping[str, object]
"""A JSON schema of draft 2020-12, the dialect of OpenAPI 3.1."""
NOTHING: Schema = {"enum": [None, [], {}]}
"""What any member may hold that is not known here: these ask for nothing."""


@dataclass(frozen=True)
class Check(Generic[T]):
    """Takes a value under its place in the body, which errors name, and returns it as it is used.

    `schema` tells the same in JSON Schema, for the OpenAPI document. Raises InvalidRequestError.
    """

    take: Callable[[str, object], T]
    schema: Schema

    def __call__(self, param: str, value: object) -> T:
        """Return the value as it is used."""
        return self.take(param, value)

    def then(self, use: Callable[[str, T], U]) -> Check[U]:
        """Return this check with a further step, which accepts everything that `schema` describes."""
        return Check(lambda param, value: use(param, self.take(param, value)), self.schema)

    def described(self, schema: Schema) -> Check[T]:
        """Return this check with a closer description of what it takes."""
        return Check(self.take, schema)


def shown(value: object) -> str:
    """Return a value as an error message shows it: scalars as they are, but short; anything else by its type."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        # The digits of a huge integer are not even computed: Python refuses to write more than 4300.
        return f"{value:g}" if isinstance(value, float) or abs(value) < INT64 else "a huge number"
    if isinstance(value, str):
        return repr(value if len(value) <= SHOWN_CHARACTERS else value[:SHOWN_CHARACTERS] + "...")
    return "a list" if isinstance(value, list) else "an object"


def wrong_type(param: str, expected: str, value: object) -> InvalidRequestError:
    """Return the error of a value that is of another type."""
    return InvalidRequestError(f"{param}: expected {expected}, not {shown(value)}.", param=param, code="invalid_type")


def wrong_value(param: str, expected: str, value: object) -> InvalidRequestError:
    """Return the error of a value outside what is allowed."""
    return InvalidRequestError(f"{param}: expected {expected}, not {shown(value)}.", param=param)


def missing(param: str) -> InvalidRequestError:
    """Return the error of a field that is not there."""
    return InvalidRequestError(f"{param}: this field is required.", param=param, code="missing_required_parameter")


def asks_for_nothing(value: object) -> bool:
    """Tell whether a value is null, [] or {}."""
    return value is None or value in ([], {})


def same(value: object, other: object) -> bool:
    """Tell whether two JSON values are equal; unlike in Python, true is not 1."""
    return isinstance(value, bool) == isinstance(other, bool) and value == other


def nullable(schema: Schema) -> Schema:
    """Return the schema of a field that may also be null."""
    return {"anyOf": [schema, {"type": "null"}]}


def _text(param: str, value: object) -> str:
    if not isinstance(value, str):
        raise wrong_type(param, "a string", value)
    return value


def _boolean(param: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise wrong_type(param, "a boolean", value)
    return value


def _object(param: str, value: object) -> JsonObject:
    if not isinstance(value, dict):
        raise wrong_type(param, "an object", value)
    return value


def _filled(param: str, value: str) -> str:
    if not value:
        raise wrong_value(param, "a string that is not empty", value)
    return value


text = Check(_text, {"type": "string"})
filled_text = text.then(_filled).described({"type": "string", "minLength": 1})
boolean = Check(_boolean, {"type": "boolean"})
json_object = Check(_object, {"type": "object"})


def number(low: float, high: float, *, above: bool = False) -> Check[float]:
    """Return the check for a number in [low, high], or in (low, high] when it must be `above` low."""

    def take(param: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong_type(param, "a number", value)
        # The comparison comes before float(), which an integer of 400 digits would break.
        if not low <= value <= high or (above and value == low):
            raise wrong_value(param, f"{'more than' if above else 'at least'} {low:g} and at most {high:g}", value)
        return float(value)

    return Check(take, {"type": "number", "exclusiveMinimum" if above else "minimum": low, "maximum": high})


def integer(low: int, high: int) -> Check[int]:
    """Return the check for an integer in [low, high]; 5.0 is one too, as in JSON Schema."""

    def take(param: str, value: object) -> int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong_type(param, "an integer", value)
        if not low <= value <= high:
            raise wrong_value(param, f"an integer between {low} and {high}", value)
        return value

    return Check(take, {"type": "integer", "minimum": low, "maximum": high})


def one_of(values: Sequence[str]) -> Check[str]:
    """Return the check for one of some strings."""

    def take(param: str, value: object) -> str:
        if _text(param, value) not in values:
            raise wrong_value(param, f"one of {', '.join(values)}", value)
        return str(value)

    return Check(take, {"type": "string", "enum": list(values)})


def only(value: object, why: str) -> Check[None]:
    """Return the check for a member of which just one value can be honoured, the one that changes nothing."""

    def take(param: str, given: object) -> None:
        if not same(given, value):
            raise UnsupportedParameterError(param, why)

    return Check(take, {"enum": [value]})


def list_of(item: Check[T], *, low: int = 0, high: int | None = None, what: str = "items") -> Check[tuple[T, ...]]:
    """Return the check for a list of at least `low` and at most `high` items."""

    def take(param: str, value: object) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise wrong_type(param, f"a list of {what}", value)
        if len(value) < low:
            raise InvalidRequestError(f"{param}: expected at least {low} {what}.", param=param, code="empty_array")
        if high is not None and len(value) > high:
            raise InvalidRequestError(f"{param}: expected at most {high} {what}, not {len(value)}.", param=param)
        return tuple(item(f"{param}[{position}]", part) for position, part in enumerate(value))

    schema: dict[str, object] = {"type": "array", "items": item.schema}
    if low:
        schema["minItems"] = low
    if high is not None:
        schema["maxItems"] = high
    return Check(take, schema)


def record(members: Mapping[str, Check[Any]], required: Sequence[str] = ()) -> Check[dict[str, Any]]:
    """Return the check for an object with these members; the result has those that are not null, checked.

    Another member is refused by name unless it asks for nothing.
    """

    def take(param: str, value: object) -> dict[str, Any]:
        taken: dict[str, Any] = {}
        for name, member in _object(param, value).items():
            place = f"{param}.{name[:100]}"
            if name in members:
                if member is not None:
                    taken[name] = members[name](place, member)
            elif not asks_for_nothing(member):
                raise UnsupportedParameterError(place, f"only {', '.join(members)} can be given here.")
        for name in required:
            if name not in taken:
                raise missing(f"{param}.{name}")
        return taken

    properties = {name: check.schema if name in required else nullable(check.schema) for name, check in members.items()}
    schema: dict[str, object] = {"type": "object", "properties": properties, "additionalProperties": NOTHING}
    if required:
        schema["required"] = list(required)
    return Check(take, schema)
