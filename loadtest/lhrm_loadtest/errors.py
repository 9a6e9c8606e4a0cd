"""The error that a user can mend, and how a value that does not fit its model is described."""

from __future__ import annotations

from pydantic import ValidationError

_SHOWN_CHARACTERS = 80


class LoadTestError(Exception):
    """A load test that cannot run or be reported; the message names what is wrong."""


def describe(exc: ValidationError) -> str:
    """Return ``field = value: why`` of the first thing that does not fit."""
    first = exc.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    why = first["msg"].removeprefix("Value error, ")
    if not where:
        return f"line: {why}"
    shown = repr(first.get("input"))
    if len(shown) > _SHOWN_CHARACTERS:
        shown = shown[:_SHOWN_CHARACTERS] + "..."
    return f"{where}: {why}" if first["type"] == "missing" else f"{where} = {shown}: {why}"
