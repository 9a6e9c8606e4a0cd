"""The table of scorers: a name, or the import path of a function of one's own, to a scorer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType

from lhrm_train.config import ConfigError, RewardConfig
from lhrm_train.rewards.base import Scorer, require
from lhrm_train.rewards.choice import choice
from lhrm_train.rewards.exact import exact
from lhrm_train.rewards.gym import Gym
from lhrm_train.rewards.json_value import json_value
from lhrm_train.rewards.mathematics import Mathematics
from lhrm_train.rewards.numeric import Numeric
from lhrm_train.rewards.pattern import pattern
from lhrm_train.rewards.reward_model import RewardModel

_TABLE: Mapping[str, Callable[[RewardConfig], Scorer]] = MappingProxyType(
    {
        "exact": lambda config: exact,
        "numeric": lambda config: Numeric(config.numeric_tolerance),
        "math": lambda config: Mathematics(),
        "choice": lambda config: choice,
        "json": lambda config: json_value,
        "regex": lambda config: pattern,
        "gym": lambda config: Gym(),
        "reward_model": RewardModel,
    }
)
_PACKAGES: Mapping[str, str] = MappingProxyType(
    {"math": "math_verify", "regex": "regex", "gym": "reasoning_gym", "reward_model": "transformers"}
)


def scorer(name: str, config: RewardConfig) -> Scorer:
    """Return the scorer called `name`, or the function at the import path ``module:function`` (or a dot).

    Cheap: no model is loaded and no process started here. Raises ConfigError on an unknown name, a path that
    leads to no function, or a package that is not installed.
    """
    if name in _TABLE:
        if name in _PACKAGES:
            require(_PACKAGES[name], name)
        return _TABLE[name](config)
    if ":" in name or "." in name:
        return _imported(name)
    raise ConfigError(f"unknown scorer {name!r}; known: {', '.join(_TABLE)}, or the import path module:function")


def _imported(path: str) -> Scorer:
    module, _, function = path.partition(":") if ":" in path else path.rpartition(".")
    try:
        found: Scorer = getattr(import_module(module), function)
    except (ImportError, AttributeError, TypeError, ValueError) as exc:
        raise ConfigError(f"scorer {path!r} cannot be imported: {exc}; is its file on PYTHONPATH?") from exc
    if not callable(found):
        raise ConfigError(f"scorer {path!r} is not a function")
    return found
