"""Plain GRPO over one pooled group (arXiv 2402.03300), with both modes forced half and half.

This is also the recipe of R-4B (arXiv 2508.21113): no reward speaks of the mode, and every token of a rollout,
the tag included, gets (score - mean) / std over all rollouts of the prompt.
"""

from __future__ import annotations

from lhrm_train.advantages import Advantages, Groups, drop_invalid, normalise
from lhrm_train.config import HGPOConfig
from lhrm_train.objectives.base import Objective, ratio


def advantages(groups: Groups, config: HGPOConfig) -> Advantages:
    """Give every token of a rollout the advantage of its rollout in the pooled group."""
    pooled_PGN = normalise(groups.scores_PGN.flatten(1)).view_as(groups.scores_PGN)
    pooled_PGN = drop_invalid(pooled_PGN, groups.scores_PGN)
    return Advantages(pooled_PGN, pooled_PGN)


GRPO = Objective(advantages, tag_terms=ratio)
