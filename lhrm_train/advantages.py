"""HGPO's advantages (arXiv 2505.14631, section 3.3) as pure functions.

Axes: P prompts, G the two modes (0 = think, 1 = no-think), N rollouts of one mode. A NaN score marks an
invalid rollout (its scorer failed): it is left out of every mean and gets advantage 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

THINK, NO_THINK = 0, 1


@dataclass(frozen=True)
class Advantages:
    """Per rollout: what its response tokens get and what its opening tag gets; both (P, G, N)."""

    response_PGN: Tensor
    decision_PGN: Tensor
    think_wins_P: Tensor
    both_fail_P: Tensor


def normalise(values: Tensor) -> Tensor:
    """Return (x - mean) / population std over the last axis, NaN ignored; 0 where all are equal."""
    valid = ~values.isnan()
    count = valid.sum(-1, keepdim=True).clamp(min=1)
    filled = values.nan_to_num()
    mean = filled.sum(-1, keepdim=True) / count
    centred = torch.where(valid, filled - mean, torch.zeros_like(filled))
    std = (centred.square().sum(-1, keepdim=True) / count).sqrt()
    return torch.where(std > 0, centred / std.clamp(min=1e-12), torch.zeros_like(centred))


def intra_rewards(scores_PGN: Tensor) -> Tensor:
    """Return 1 for a rollout that reaches the best score of its own mode, else 0; every tied best gets 1."""
    best = scores_PGN.nan_to_num(nan=-torch.inf).amax(-1, keepdim=True)
    rewards = (scores_PGN == best).to(scores_PGN.dtype)
    return torch.where(scores_PGN.isnan(), torch.full_like(rewards, torch.nan), rewards)


def think_wins(scores_PGN: Tensor, delta: float) -> Tensor:
    """Tell per prompt whether think's mean score exceeds no-think's by more than `delta` (P,)."""
    means_PG = scores_PGN.nanmean(-1)
    return means_PG[:, THINK] > means_PG[:, NO_THINK] + delta


def inter_rewards(wins_P: Tensor, shape: torch.Size) -> Tensor:
    """Return 1 for every rollout of the winning mode, else 0, broadcast to (P, G, N)."""
    rewards_PG = torch.stack([wins_P, ~wins_P], dim=1).float()
    return rewards_PG[:, :, None].expand(shape)


def hgpo(scores_PGN: Tensor, alpha: float, delta: float, mask_both_fail: bool) -> Advantages:
    """Combine both terms: the response gets the intra term, the opening tag gets both.

    With `mask_both_fail` the tag gets no inter term where neither mode scores above 0.
    """
    intra_PGN = normalise(intra_rewards(scores_PGN))
    wins_P = think_wins(scores_PGN, delta)
    rewards_PGN = inter_rewards(wins_P, scores_PGN.shape)
    inter_PGN = normalise(rewards_PGN.flatten(1)).view_as(scores_PGN)
    fail_P = (scores_PGN.nan_to_num() <= 0).flatten(1).all(-1)
    if mask_both_fail:
        inter_PGN = torch.where(fail_P[:, None, None], torch.zeros_like(inter_PGN), inter_PGN)
    decision_PGN = intra_PGN + alpha * inter_PGN
    decision_PGN = torch.where(scores_PGN.isnan(), torch.zeros_like(decision_PGN), decision_PGN)
    return Advantages(intra_PGN, decision_PGN, wins_P, fail_P)
