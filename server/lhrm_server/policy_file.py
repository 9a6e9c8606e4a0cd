"""The operator's policy from a TOML file and flags; one file can serve several gateways, by served model name."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .control import EFFORT_LEVELS, Wish
from .policy import ModePolicy
from .setting_checks import SettingsError, require

MODELS = "models"


def load_policy(path: Path | None, model_name: str, flags: Mapping[str, object]) -> ModePolicy:
    """Return the policy of one served model: a flag that is not None > the table of this model > the file > defaults.

    A table replaces whole keys, `effort_budgets` too. Raises SettingsError naming file and key.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    if path is None:
        return build_policy(given)
    everywhere, models = _tables(path)
    try:
        # Every table is read, not only that of this model: a mistake shows at the first start.
        policies = {name: build_policy({**everywhere, **table}) for name, table in models.items()}
        policies[model_name] = build_policy({**everywhere, **models.get(model_name, {}), **given})
    except SettingsError as exc:
        raise SettingsError(f"{path}: {exc}") from exc
    return policies[model_name]


def build_policy(raw: Mapping[str, object]) -> ModePolicy:
    """Return the policy that plain values describe. Raises SettingsError naming an unknown key or a bad value."""
    for name, value in raw.items():
        if name not in _READERS:
            raise _wrong(name, value, f"one of {', '.join(_READERS)}")
    return ModePolicy(**{name: _READERS[name](name, value) for name, value in raw.items()})


def _tables(path: Path) -> tuple[dict[str, object], dict[str, dict[str, object]]]:
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise SettingsError(f"policy={str(path)!r}: {exc.strerror or exc}") from exc
    except ValueError as exc:
        raise SettingsError(f"policy={str(path)!r}: {exc}") from exc
    models = raw.pop(MODELS, {})
    require(isinstance(models, dict), f"{path}: {MODELS}", models, "tables by served model name")
    for name, table in models.items():
        require(isinstance(table, dict), f"{path}: {MODELS}.{name}", table, "a table")
    return raw, models


def _mode(name: str, value: object) -> Wish:
    known = {wish.value: wish for wish in Wish}
    if not isinstance(value, str) or value not in known:
        raise _wrong(name, value, f"one of {', '.join(known)}")
    return known[value]


def _modes(name: str, value: object) -> tuple[Wish, ...]:
    if not isinstance(value, list):
        raise _wrong(name, value, "a list of modes")
    wishes = {_mode(name, mode) for mode in value}
    return tuple(wish for wish in Wish if wish in wishes)


def _tokens(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(name, value, "a whole number of tokens")
    return value


def _share(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(name, value, "0 to 1")
    return float(value)


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong(name, value, "true or false")
    return value


def _budgets(name: str, value: object) -> dict[str, int]:
    if not isinstance(value, dict):
        raise _wrong(name, value, f"a table of tokens by level: {', '.join(EFFORT_LEVELS)}")
    return {level: _tokens(f"{name}.{level}", tokens) for level, tokens in value.items()}


def _wrong(name: str, value: object, expected: str) -> SettingsError:
    return SettingsError(f"{name}={value!r}: expected {expected}")


_READERS: Mapping[str, Callable[[str, object], Any]] = MappingProxyType(
    {
        "default_mode": _mode,
        "think_threshold": _share,
        "allowed_modes": _modes,
        "effort_budgets": _budgets,
        "max_reasoning_tokens": _tokens,
        "answer_reserve": _tokens,
        "retry_unanswered": _flag,
    }
)
