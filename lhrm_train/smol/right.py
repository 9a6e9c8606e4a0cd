"""Scorer ``lhrm_train.smol.right:right``: right or wrong for reasoning-gym, whose verifiers also give parts of 1."""

from __future__ import annotations

import re
from functools import cache

from lhrm_train.config import RewardConfig
from lhrm_train.problems import Problem
from lhrm_train.rewards.base import Scorer
from lhrm_train.rewards.exact import exact
from lhrm_train.rewards.table import scorer

_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
# Their verifiers give a whole 1 to an answer that holds more than what was asked for.
_BY_LETTER = frozenset({"spell_backward", "time_intervals", "word_sorting"})
_LIST = "number_sorting"  # its verifier lets every number be off by 1


@cache
def _scorer(name: str) -> Scorer:
    return scorer(name, RewardConfig())


def right(problem: Problem, answer: str) -> float:
    """Return 1 for a right answer, else 0: "12" for 1 is wrong, "It is 5." for 5 right, though the verifiers of
    reasoning-gym count the length of what is said.

    Where the reference is a number, the last number of the answer counts (`numeric`); where it is a list of them, all
    numbers of the answer; a word spelled backward, words in order or a length of time must be the whole answer, letter
    by letter; of the other tasks the verifier must give 1. A full stop at the end is left aside. Raises ScoreError
    where the problem lacks what the verifier needs, ConfigError without reasoning-gym.
    """
    if _NUMBER.fullmatch(problem.reference.strip()):
        return _scorer("numeric")(problem, answer)
    if problem.kind == _LIST:
        asked, given = ([float(one) for one in _NUMBER.findall(text)] for text in (problem.reference, answer))
        return float(asked == given)
    said = answer.strip().removesuffix(".")
    if problem.kind in _BY_LETTER:
        return exact(problem, said)
    return float(_scorer("gym")(problem, said) >= 1)
