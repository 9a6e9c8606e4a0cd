"""Scorer `exact`: the answer is the reference, character for character."""

from __future__ import annotations

from lhrm_train.problems import Problem


def exact(problem: Problem, answer: str) -> float:
    """Return 1 when `answer` equals the reference, white space around both left aside."""
    return float(answer.strip() == problem.reference.strip())
