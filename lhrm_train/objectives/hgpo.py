"""HGPO (arXiv 2505.14631, section 3.3): modes compete for the tag, rollouts of one mode for the response."""

from __future__ import annotations

import torch

from lhrm_train.advantages import (
    Advantages,
    Groups,
    both_fail,
    decided,
    drop_invalid,
    inter_rewards,
    intra_rewards,
    normalise,
    think_wins,
)
from lhrm_train.config import HGPOConfig
from lhrm_train.objectives.base import Objective


def advantages(groups: Groups, config: HGPOConfig) -> Advantages:
    """Give the response the intra term and the opening tag intra + alpha * inter.

    The tag gets no inter term where a mode has no valid rollout, nor, with `config.mask_both_fail`, where neither
    mode scores above 0. The objective `winner` pushes no tag up but that of the mode which wins.
    """
    scores_PGN = groups.scores_PGN
    intra_PGN = normalise(intra_rewards(scores_PGN, groups.tokens_PGN, config.ties))
    rewards_PGN = inter_rewards(think_wins(groups, config.token_price), scores_PGN.shape)
    inter_PGN = normalise(rewards_PGN.flatten(1)).view_as(scores_PGN)
    silent_P = ~decided(scores_PGN)
    if config.mask_both_fail:
        silent_P = silent_P | both_fail(scores_PGN)
    inter_PGN = torch.where(silent_P[:, None, None], torch.zeros_like(inter_PGN), inter_PGN)
    decision_PGN = intra_PGN + config.alpha * inter_PGN
    if config.decision_objective == "winner":
        # A rollout that is the best of the losing mode can outweigh the inter term, from N = 6 on or where alpha < 1.
        decision_PGN = torch.where(inter_PGN > 0, decision_PGN, decision_PGN.clamp(max=0))
    return Advantages(intra_PGN, drop_invalid(decision_PGN, scores_PGN))


HGPO = Objective(advantages)
