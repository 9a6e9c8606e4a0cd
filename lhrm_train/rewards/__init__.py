"""Rewards: a judge for completions, a table of scorers, and what a scorer of one's own must look like."""

from lhrm_train.rewards.base import ScoreError, Scorer
from lhrm_train.rewards.judge import Judge, Judged
from lhrm_train.rewards.table import scorer

__all__ = ["Judge", "Judged", "ScoreError", "Scorer", "scorer"]
