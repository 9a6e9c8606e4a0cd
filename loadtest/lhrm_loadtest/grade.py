"""Score an answer: by comparison with its references, or by the training package's scorer that its prompt names."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING

from .errors import LoadTestError
from .prompts import Prompt

if TYPE_CHECKING:
    from lhrm_train.rewards import Scorer


class ScoringError(Exception):
    """An answer that could not be scored, which says nothing about it being right or wrong."""


def score(prompt: Prompt, answer: str) -> float | None:
    """Return 1 for right, 0 for wrong, a share for partly right; None for a prompt without a reference.

    Without a scorer, case, spacing and a final full stop do not count. Raises ScoringError where the scorer fails.
    """
    if prompt.scorer is not None:
        return _scored(prompt, prompt.scorer, answer)
    if prompt.answer is None:
        return None
    references = (prompt.answer,) if isinstance(prompt.answer, str) else prompt.answer
    return float(_plain(answer) in {_plain(reference) for reference in references})


def check_scorers(prompts: Iterable[Prompt]) -> None:
    """Raise LoadTestError now for a scorer that some prompt names and that cannot be had."""
    for name in sorted({prompt.scorer for prompt in prompts if prompt.scorer is not None}):
        _scorer(name)


def _plain(text: str) -> str:
    return " ".join(text.split()).removesuffix(".").rstrip().casefold()


@cache
def _scorer(name: str) -> Scorer:
    try:
        from lhrm_train.config import ConfigError, RewardConfig
        from lhrm_train.rewards import scorer
    except ImportError as exc:
        raise LoadTestError(f"scorer = {name!r}: the training package cannot be imported: {exc}") from exc
    try:
        return scorer(name, RewardConfig())
    except ConfigError as exc:
        raise LoadTestError(f"scorer = {name!r}: {exc}") from exc


def _scored(prompt: Prompt, name: str, answer: str) -> float:
    from lhrm_train.format import Message
    from lhrm_train.problems import Problem

    reference = prompt.answer if isinstance(prompt.answer, str) else (prompt.answer or ("",))[0]
    problem = Problem(
        messages=tuple(Message(turn.role, turn.content) for turn in prompt.messages),
        reference=reference,
        scorer=name,
        fields=prompt.fields,
    )
    try:
        value = float(_scorer(name)(problem, answer))
    except Exception as exc:
        raise ScoringError(f"{name}: {type(exc).__name__}: {exc}") from exc
    if math.isnan(value) or not 0 <= value <= 1:
        raise ScoringError(f"{name}: {value} is not within 0 and 1")
    return value
