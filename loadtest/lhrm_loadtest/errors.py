"""The error that a user can mend, and how a value that does not fit its model is described."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pydantic import ValidationError

_SHOWN_CHARACTERS = 80
_AS_THEY_ARE: Mapping[str, str] = MappingProxyType({})
_UNKNOWN_KEY = "extra_forbidden"


class LoadTestError(Exception):
    """A load test that cannot run or be reported; the message names what is wrong."""


def describe(exc: ValidationError, names: Mapping[str, str] = _AS_THEY_ARE) -> str:
    """Return ``field = value: why`` of the first thing that does not fit; a key that is unknown comes first.

    A misspelled key is also one that is missing. `names` are what the user calls fields that have another name here.
    """
    errors = exc.errors()
    first = next((error for error in errors if error["type"] == _UNKNOWN_KEY), errors[0])
    where = ".".join(str(part) for part in first["loc"])
    where = names.get(where, where)
    why = "unknown key" if first["type"] == _UNKNOWN_KEY else first["msg"].removeprefix("Value error, ")
    if not where:
        return f"line: {why}"
    shown = repr(first.get("input"))
    if len(shown) > _SHOWN_CHARACTERS:
        shown = shown[:_SHOWN_CHARACTERS] + "..."
    return f"{where}: {why}" if first["type"] == "missing" else f"{where} = {shown}: {why}"
