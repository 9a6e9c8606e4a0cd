"""Bounds of settings: written in the type of a field, checked whenever its dataclass is built."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, get_args, get_origin, get_type_hints


class ConfigError(ValueError):
    """A setting that does not exist or has a value that cannot be used."""


@dataclass(frozen=True)
class Bound:
    """What a value must satisfy; `words` completes the sentence "it must be ..."."""

    words: str
    holds: Callable[[Any], bool]


Count = Annotated[int, Bound("at least 1", lambda x: x >= 1)]
Pair = Annotated[int, Bound("at least 2", lambda x: x >= 2)]
Whole = Annotated[int, Bound("at least 0", lambda x: x >= 0)]
# The seeds that every library takes.
Seed = Annotated[int, Bound("between 0 and 2^32 - 1", lambda x: 0 <= x < 2**32)]
Positive = Annotated[float, Bound("more than 0", lambda x: x > 0)]
NotNegative = Annotated[float, Bound("at least 0", lambda x: x >= 0)]
Share = Annotated[float, Bound("between 0 and 1", lambda x: 0 <= x <= 1)]
PartOfAll = Annotated[float, Bound("at least 0 and less than 1", lambda x: 0 <= x < 1)]
Inside = Annotated[float, Bound("between 0 and 1, without either", lambda x: 0 < x < 1)]
# Scores lie in [0, 1], so nothing can win or lose by more than 1.
Margin = Annotated[float, Bound("between -1 and 1", lambda x: -1 <= x <= 1)]
Words = Annotated[str, Bound("not empty", lambda x: bool(x.strip()))]


class Settings:
    """A base for frozen dataclasses that refuse values outside the bounds in the types of their fields.

    Floats are finite whatever their type says. Raises ConfigError, which begins with the name of the field.
    """

    def __post_init__(self) -> None:
        """Check every field."""
        hints = get_type_hints(type(self), include_extras=True)
        for field in fields(self):  # type: ignore[arg-type]
            _check(field.name, getattr(self, field.name), hints[field.name])


def _check(name: str, value: Any, kind: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name} = {value}: not a finite number")
    if get_origin(kind) is Annotated:
        kind, *bounds = get_args(kind)
        for bound in bounds:
            if not bound.holds(value):
                raise ConfigError(f"{name} = {value!r}: {bound.words}")
    if isinstance(value, tuple):
        for place, item in enumerate(value):
            _check(f"{name}[{place}]", item, get_args(kind)[0])
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check(f"{name}.{key}", item, get_args(kind)[1])
