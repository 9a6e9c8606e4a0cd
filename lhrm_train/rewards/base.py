"""What a scorer is, and the errors and checks that all scorers share."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, Protocol

from lhrm_train.config import ConfigError
from lhrm_train.problems import Problem


class ScoreError(Exception):
    """An answer that could not be scored; it says nothing about the answer being right or wrong."""


class Scorer(Protocol):
    """Rates an answer: 1 is right, 0 is wrong, anything between is partly right.

    Raising, or returning something outside [0, 1], means that this answer has no score.
    """

    def __call__(self, problem: Problem, answer: str) -> float:
        """Return the score of `answer`, the text outside the reasoning, in [0, 1]."""
        ...


def require(package: str, scorer: str) -> None:
    """Raise ConfigError when the optional `package` of a scorer is not installed. Imports nothing."""
    if find_spec(package) is None:
        extra = "gym" if scorer == "gym" else "train"
        raise ConfigError(f"scorer {scorer!r} needs the package {package}: pip install 'lhrm[{extra}]'")


def required_mapping(problem: Problem, name: str, scorer: str) -> dict[str, Any]:
    """Return ``problem.fields[name]`` as a dict. Raises ScoreError when it is absent or no mapping."""
    value = problem.fields.get(name)
    if not isinstance(value, Mapping):
        raise ScoreError(f"scorer {scorer!r}: fields[{name!r}] = {value!r} is not a mapping")
    return dict(value)
