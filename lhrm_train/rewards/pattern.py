"""Scorer `regex`: the answer matches the reference, a regular expression."""

from __future__ import annotations

from lhrm_train.problems import Problem
from lhrm_train.rewards.base import ScoreError

MATCH_SECONDS = 1.0


def pattern(problem: Problem, answer: str) -> float:
    """Return 1 when all of `answer`, white space around it left aside, matches the reference, else 0.

    The syntax is that of the package regex, which accepts that of `re`. Raises ScoreError when the reference is
    not a regular expression or the match takes longer than `MATCH_SECONDS`.
    """
    import regex

    try:
        found = regex.fullmatch(problem.reference, answer.strip(), timeout=MATCH_SECONDS)
    except regex.error as exc:
        raise ScoreError(f"scorer 'regex': reference {problem.reference!r} is no regular expression: {exc}") from exc
    except TimeoutError as exc:
        raise ScoreError(f"scorer 'regex': reference {problem.reference!r} took over {MATCH_SECONDS} s") from exc
    return float(found is not None)
