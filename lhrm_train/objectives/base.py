"""What an objective is: how scores become advantages, and how the forced opening tag is trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from lhrm_train.advantages import Advantages, Groups
from lhrm_train.config import DecisionObjective, HGPOConfig

FORCING_RATE = 0.5
TagTerms = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(old log-probs, advantages) of the opening tags -> the same two, as the clipped objective shall see them."""


def ratio(old_logp: Tensor, advantage: Tensor) -> tuple[Tensor, Tensor]:
    """Take the ratio to the policy that scored the rollout, as for every other token."""
    return old_logp, advantage


def forcing_rate(old_logp: Tensor, advantage: Tensor) -> tuple[Tensor, Tensor]:
    """Take the ratio to the probability with which the tag was forced."""
    return torch.full_like(old_logp, math.log(FORCING_RATE)), advantage


def winner(old_logp: Tensor, advantage: Tensor) -> tuple[Tensor, Tensor]:
    """Push up the tags with a positive advantage only."""
    return old_logp, advantage.clamp(min=0)


TAG_TERMS: Mapping[DecisionObjective, TagTerms] = MappingProxyType(
    {"ratio": ratio, "forcing_rate": forcing_rate, "winner": winner}
)


@dataclass(frozen=True)
class Objective:
    """One row of the table. `tag_terms` None leaves the choice to `hgpo.decision_objective`."""

    advantages: Callable[[Groups, HGPOConfig], Advantages]
    tag_terms: TagTerms | None = None
    needs_reference: bool = False

    def terms(self, config: HGPOConfig) -> TagTerms:
        """Return how the opening tag is trained."""
        return self.tag_terms or TAG_TERMS[config.decision_objective]
