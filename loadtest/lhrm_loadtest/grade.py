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

# The scorers that read the answer; a function of one's own may do without.
_COMPARING = ("exact", "numeric", "math", "choice", "regex", "json")


class ScoringError(Exception):
    """An answer that could not be scored, which says nothing about it being right or wrong."""


def score(prompt: Prompt, answer: str) -> float | None:
    """Return 1 for right, 0 for wrong, a share for partly right; None for a prompt without a reference.

    Of several references the one that gives most counts. Without a scorer, case, spacing and a final full stop do not
    count. Raises ScoringError where the scorer fails on any of them.
    """
    references = _references(prompt)
    if prompt.scorer is not None:
        name = prompt.scorer
        return max(_scored(prompt, name, reference, answer) for reference in references or ("",))
    if not references:
        return None
    return float(_plain(answer) in {_plain(reference) for reference in references})


def check_scorers(prompts: Iterable[Prompt]) -> None:
    """Raise LoadTestError now for a prompt whose scorer cannot be had, or not without an answer."""
    for prompt in prompts:
        check_scorer(prompt)


def check_scorer(prompt: Prompt) -> None:
    """Raise LoadTestError for a scorer that cannot be had, or that compares with an answer the prompt does not have."""
    name = prompt.scorer
    if name is None:
        return
    _scorer(name)
    schema = name == "json" and "json_schema" in prompt.fields
    if schema:
        _require_jsonschema()
    if name in _COMPARING and not schema and not _references(prompt):
        raise LoadTestError(f"scorer = {name!r} compares with answer, which is missing")


def _references(prompt: Prompt) -> tuple[str, ...]:
    if prompt.answer is None:
        return ()
    return (prompt.answer,) if isinstance(prompt.answer, str) else prompt.answer


def _plain(text: str) -> str:
    return " ".join(text.split()).removesuffix(".").rstrip().casefold()


@cache
def _scorer(name: str) -> Scorer:
    try:
        from lhrm_train.config import ConfigError, RewardConfig
        from lhrm_train.rewards import scorer
    except ImportError as exc:
        raise LoadTestError(f"scorer = {name!r}: {exc}: pip install 'lhrm[train]'") from exc
    try:
        return scorer(name, RewardConfig())
    except ConfigError as exc:
        raise LoadTestError(f"scorer = {name!r}: {exc}") from exc


@cache
def _require_jsonschema() -> None:
    from lhrm_train.config import ConfigError
    from lhrm_train.rewards.base import require

    try:
        require("jsonschema", "json")
    except ConfigError as exc:
        raise LoadTestError(f"scorer = 'json': {exc}") from exc


def _scored(prompt: Prompt, name: str, reference: str, answer: str) -> float:
    from lhrm_train.format import Message
    from lhrm_train.problems import Problem

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
