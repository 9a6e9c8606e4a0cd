"""The one error of a setting that cannot work, and the check that raises it."""

from __future__ import annotations


class SettingsError(ValueError):
    """A setting whose value cannot work; the message names the setting and the value."""


def require(holds: bool, name: str, value: object, expected: str) -> None:
    """Raise SettingsError naming the setting, unless its value holds."""
    if not holds:
        raise SettingsError(f"{name}={value!r}: expected {expected}")
