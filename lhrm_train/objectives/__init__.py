"""The objectives stage two can train with, by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from lhrm_train.config import ConfigError
from lhrm_train.objectives.adaptthink import ADAPTTHINK
from lhrm_train.objectives.base import Objective
from lhrm_train.objectives.grpo import GRPO
from lhrm_train.objectives.hgpo import HGPO

OBJECTIVES: Mapping[str, Objective] = MappingProxyType({"hgpo": HGPO, "grpo": GRPO, "adaptthink": ADAPTTHINK})


def objective(name: str) -> Objective:
    """Return the objective of that name. Raises ConfigError naming the known ones."""
    if name not in OBJECTIVES:
        raise ConfigError(f"hgpo.objective = {name!r}; known: {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]
