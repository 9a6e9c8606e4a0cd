"""How tests of scorers ask one."""

from lhrm_train.config import RewardConfig
from lhrm_train.format import Message
from lhrm_train.problems import Problem
from lhrm_train.rewards import scorer

CONFIG = RewardConfig()


def problem(reference: str = "", **fields) -> Problem:
    return Problem((Message("user", "q"),), reference, fields=fields)


def score(name: str, reference: str, answer: str, **fields) -> float:
    return scorer(name, CONFIG)(problem(reference, **fields), answer)
