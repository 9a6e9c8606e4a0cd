"""AdaptThink (arXiv 2505.13417): no-think earns a bonus delta, everything is measured against the reference.

A = 1[no-think] * delta + R - mean R of the reference in think mode, for every token of a rollout. The tag is
drawn half and half, and its ratio is taken to that forcing rate. AdaptThink's delta is 0.05.
"""

from __future__ import annotations

import torch

from lhrm_train.advantages import NO_THINK, Advantages, Groups, drop_invalid
from lhrm_train.config import HGPOConfig
from lhrm_train.objectives.base import Objective, forcing_rate


def advantages(groups: Groups, config: HGPOConfig) -> Advantages:
    """Give every token of a rollout its score above the reference's mean, plus delta in no-think.

    A prompt on which the reference has no valid score teaches nothing. Raises ValueError when the groups carry no
    reference scores.
    """
    if groups.reference_P is None:
        raise ValueError("adaptthink needs reference scores")
    bonus_PGN = torch.zeros_like(groups.scores_PGN)
    bonus_PGN[:, NO_THINK] = groups.delta_P[:, None]
    gain_PGN = bonus_PGN + groups.scores_PGN - groups.reference_P[:, None, None]
    gain_PGN = drop_invalid(gain_PGN, gain_PGN)
    return Advantages(gain_PGN, gain_PGN)


ADAPTTHINK = Objective(advantages, tag_terms=forcing_rate, needs_reference=True)
