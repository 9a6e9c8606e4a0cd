"""From parsed TOML to dataclasses of settings, strictly: nothing unknown, nothing of another type."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from lhrm_train.bounds import ConfigError


def build(cls: type, raw: Mapping[str, Any], where: str = "") -> Any:
    """Return `cls` filled from `raw`; `where` is the dotted place of the table, with a dot at its end.

    Raises ConfigError naming the setting with its place.
    """
    hints = get_type_hints(cls)
    known = {f.name for f in dataclasses.fields(cls)}
    values = {}
    for key, value in raw.items():
        if key not in known:
            raise ConfigError(f"unknown setting {where}{key}; known: {', '.join(sorted(known))}")
        values[key] = _coerce(hints[key], value, f"{where}{key}")
    try:
        return cls(**values)
    except ConfigError as exc:  # it names the field and does not know the table
        raise ConfigError(f"{where}{exc}") from None


def _coerce(kind: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return build(kind, _table(value, name), f"{name}.")
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{name} = {value!r}; known: {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        return _coerce_tuple(arguments, value, name)
    if origin is dict:
        return {key: _coerce(arguments[1], item, f"{name}.{key}") for key, item in _table(value, name).items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return _float(value, name)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise ConfigError(f"{name} = {value!r} is not {kind.__name__}")
    return value


def _table(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{name} = {value!r} is not a table")
    return value


def _float(value: int, name: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ConfigError(f"{name}: too large a number") from None


def _coerce_tuple(arguments: tuple[Any, ...], value: Any, name: str) -> tuple[Any, ...]:
    endless = arguments[-1] is Ellipsis
    if not isinstance(value, list | tuple) or (not endless and len(value) != len(arguments)):
        wanted = "a list" if endless else f"a list of {len(arguments)}"
        raise ConfigError(f"{name} = {value!r} is not {wanted}")
    kinds = [arguments[0]] * len(value) if endless else list(arguments)
    return tuple(_coerce(kind, item, f"{name}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True)))


def override(raw: dict[str, Any], assignment: str) -> None:
    """Apply one ``a.b=value`` to `raw`; a value that is not TOML is taken as text."""
    name, sign, text = assignment.partition("=")
    if not sign:
        raise ConfigError(f"override {assignment!r} is not of the form a.b=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *path, last = name.strip().split(".")
    for part in path:
        raw = raw.setdefault(part, {})
        if not isinstance(raw, dict):
            raise ConfigError(f"override {assignment!r}: {part} is not a table")
    raw[last] = value


def names_in(raw: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """Yield the dotted names of the settings that `raw` gives."""
    for key, value in raw.items():
        if isinstance(value, dict):
            yield from names_in(value, f"{where}{key}.")
        else:
            yield where + key
