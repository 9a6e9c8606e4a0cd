"""Checks of single JSON values; each takes the field's name for its error and returns the value as it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .body import JsonObject
from .errors import InvalidRequestError

Check = Callable[[str, object], Any]
INT32, INT64 = 2**31, 2**63


def wrong_type(param: str, expected: str) -> InvalidRequestError:
    """Return the error of a value that is of another type."""
    return InvalidRequestError(f"{param}: expected {expected}.", param=param, code="invalid_type")


def text(param: str, value: object) -> str:
    """Take a string."""
    if not isinstance(value, str):
        raise wrong_type(param, "a string")
    return value


def boolean(param: str, value: object) -> bool:
    """Take true or false."""
    if not isinstance(value, bool):
        raise wrong_type(param, "a boolean")
    return value


def json_object(param: str, value: object) -> JsonObject:
    """Take an object."""
    if not isinstance(value, dict):
        raise wrong_type(param, "an object")
    return value


def number(low: float, high: float, *, above: bool = False) -> Check:
    """Return the check for a number in [low, high], or in (low, high] when it must be `above` low."""

    def check(param: str, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise wrong_type(param, "a number")
        # The comparison comes before float(), which an integer of 400 digits would break.
        if not low <= value <= high or (above and value == low):
            bounds = f"{'more than' if above else 'at least'} {low:g} and at most {high:g}"
            raise InvalidRequestError(f"{param}: must be {bounds}.", param=param)
        return float(value)

    return check


def integer(low: int, high: int) -> Callable[[str, object], int]:
    """Return the check for an integer in [low, high]."""

    def check(param: str, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise wrong_type(param, "an integer")
        if not low <= value <= high:
            raise InvalidRequestError(f"{param}: must be between {low} and {high}.", param=param)
        return value

    return check
