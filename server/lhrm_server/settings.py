"""Every setting of the gateway with its default, validated when it is built."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

DEFAULT_MODES = ("auto", "think", "no_think")


class SettingsError(ValueError):
    """A setting whose value cannot work; the message names the setting and the value."""


@dataclass(frozen=True)
class Settings:
    """How one gateway serves one model; `model_name` is the id shown in ``/v1/models``."""

    model_name: str
    model_dir: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    default_mode: str = "auto"
    think_threshold: float = 0.5
    max_body_bytes: int = 4 * 1024 * 1024
    header_hold_s: float = 10.0
    keepalive_s: float = 15.0
    max_concurrent_requests: int = 512
    shutdown_grace_s: float = 30.0

    def __post_init__(self) -> None:
        _require(bool(self.model_name.strip()), "model_name", self.model_name, "a name")
        _require(0 <= self.port <= 65535, "port", self.port, "0 to 65535")
        _require(self.default_mode in DEFAULT_MODES, "default_mode", self.default_mode, "auto, think or no_think")
        _require(0 <= self.think_threshold <= 1, "think_threshold", self.think_threshold, "0 to 1")
        _require(0 <= self.shutdown_grace_s < math.inf, "shutdown_grace_s", self.shutdown_grace_s, "0 or more, finite")
        for name in ("max_body_bytes", "header_hold_s", "keepalive_s", "max_concurrent_requests"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "more than 0")

    @property
    def think_alias(self) -> str:
        """The model name whose requests are always thought about."""
        return f"{self.model_name}-think"

    @property
    def no_think_alias(self) -> str:
        """The model name whose requests are always answered at once."""
        return f"{self.model_name}-no-think"


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise SettingsError(f"{name}={value!r}: expected {expected}")
