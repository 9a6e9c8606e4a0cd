"""A problem to grade, and a scorer that fails on some."""

from lhrm_train.format import Message
from lhrm_train.problems import Problem


def problem(index: int, **fields) -> Problem:
    values = {"reference": str(index), "kind": "easy" if index % 2 else "hard", "key": f"k{index}", **fields}
    return Problem((Message("user", f"{index}?"),), **values)


def moody(problem: Problem, answer: str) -> float:
    """Score 0.5, but fail on question 4 and forget the scale on question 5."""
    if problem.reference == "4":
        raise RuntimeError("in a mood")
    return 7.0 if problem.reference == "5" else 0.5
