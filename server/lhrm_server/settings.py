"""Every setting of the gateway with its default, validated when it is built."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from .control import Wish
from .errors import ModelNotFoundError
from .operators import Operators
from .policy import ModePolicy
from .setting_checks import require

MOST_CHOICES = 16


@dataclass(frozen=True)
class Settings:
    """How one gateway serves one model; `model_name` is the id shown in ``/v1/models``.

    `policy` is what the operator lays down about modes, `operators` are those who may force one. A request may ask
    for at most `max_choices` choices. Raises SettingsError.
    """

    model_name: str
    host: str = "127.0.0.1"
    port: int = 8000
    policy: ModePolicy = field(default_factory=ModePolicy)
    operators: Operators = field(default_factory=Operators)
    max_choices: int = MOST_CHOICES
    max_body_bytes: int = 4 * 1024 * 1024
    header_hold_s: float = 10.0
    keepalive_s: float = 15.0
    max_concurrent_requests: int = 512
    shutdown_grace_s: float = 30.0

    def __post_init__(self) -> None:
        require(bool(self.model_name.strip()), "model_name", self.model_name, "a name")
        require(0 <= self.port <= 65535, "port", self.port, "0 to 65535")
        require(1 <= self.max_choices <= MOST_CHOICES, "max_choices", self.max_choices, f"1 to {MOST_CHOICES}")
        require(0 <= self.shutdown_grace_s < math.inf, "shutdown_grace_s", self.shutdown_grace_s, "0 or more, finite")
        for name in ("max_body_bytes", "header_hold_s", "keepalive_s", "max_concurrent_requests"):
            require(getattr(self, name) > 0, name, getattr(self, name), "more than 0")

    @property
    def think_alias(self) -> str:
        """The model name whose requests are always thought about."""
        return f"{self.model_name}-think"

    @property
    def no_think_alias(self) -> str:
        """The model name whose requests are always answered at once."""
        return f"{self.model_name}-no-think"

    @property
    def _names(self) -> dict[str, Wish | None]:
        return {self.model_name: None, self.think_alias: Wish.THINK, self.no_think_alias: Wish.NO_THINK}

    @property
    def served_names(self) -> dict[str, Wish | None]:
        """The names under which the model is listed, with the mode that each asks for."""
        return {name: wish for name, wish in self._names.items() if wish is None or wish in self.policy.allowed_modes}

    def alias_wish(self, model: str) -> Wish | None:
        """Return the mode that a model name asks for, allowed or not. Raises ModelNotFoundError."""
        if model not in self._names:
            raise ModelNotFoundError(model, self.served_names)
        return self._names[model]
