"""HGPO's advantages (arXiv 2505.14631, section 3.3) as pure functions.

Axes: P prompts, G the two modes (0 = think, 1 = no-think), N rollouts of one mode. A NaN score marks an
invalid rollout (its scorer failed): it is left out of every mean and gets advantage 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

THINK, NO_THINK = 0, 1
ROUNDING = 1e-9  # so that .8 - .6 does not exceed a margin of .2
Ties = Literal["all", "first", "shortest"]


@dataclass(frozen=True)
class Groups:
    """The scored rollouts of one step. `reference_P` is the reference's mean score in think mode, where asked for."""

    scores_PGN: Tensor
    tokens_PGN: Tensor
    delta_P: Tensor
    reference_P: Tensor | None = None


@dataclass(frozen=True)
class Advantages:
    """Per rollout: what its response tokens get and what its opening tag gets; both (P, G, N)."""

    response_PGN: Tensor
    decision_PGN: Tensor


def normalise(values: Tensor) -> Tensor:
    """Return (x - mean) / population std over the last axis, NaN ignored; 0 where all are equal."""
    valid = ~values.isnan()
    count = valid.sum(-1, keepdim=True).clamp(min=1)
    filled = values.nan_to_num()
    mean = filled.sum(-1, keepdim=True) / count
    centred = torch.where(valid, filled - mean, torch.zeros_like(filled))
    std = (centred.square().sum(-1, keepdim=True) / count).sqrt()
    return torch.where(std > 0, centred / std.clamp(min=1e-12), torch.zeros_like(centred))


def intra_rewards(scores_PGN: Tensor, tokens_PGN: Tensor, ties: Ties) -> Tensor:
    """Return 1 for the rollouts that reach the best score of their own mode, else 0.

    `ties`: all of them, the first (the paper's argmax), or those of the fewest tokens.
    """
    best = scores_PGN == scores_PGN.nan_to_num(nan=-torch.inf).amax(-1, keepdim=True)
    if ties == "first":
        best = best & (best.cumsum(-1) == 1)
    elif ties == "shortest":
        length = torch.where(best, tokens_PGN, torch.full_like(tokens_PGN, torch.inf))
        best = best & (length == length.amin(-1, keepdim=True))
    rewards = best.to(scores_PGN.dtype)
    return torch.where(scores_PGN.isnan(), torch.full_like(rewards, torch.nan), rewards)


def mode_means(values_PGN: Tensor) -> Tensor:
    """Return the mean per prompt and mode (P, G), NaN ignored."""
    return values_PGN.double().nanmean(-1)  # so that a margin of .2 between .7 and .5 is not a rounding error


def think_wins(groups: Groups, token_price: float) -> Tensor:
    """Tell per prompt whether think's mean score exceeds no-think's by more than its margin (P,).

    The margin is delta + token_price * (tokens of think - tokens of no-think). False where `decided` is.
    """
    score_PG, tokens_PG = mode_means(groups.scores_PGN), mode_means(groups.tokens_PGN)
    margin_P = groups.delta_P + token_price * (tokens_PG[:, THINK] - tokens_PG[:, NO_THINK]) + ROUNDING
    return score_PG[:, THINK] > score_PG[:, NO_THINK] + margin_P


def decided(scores_PGN: Tensor) -> Tensor:
    """Tell per prompt whether both modes have a valid rollout, so that they can be compared (P,)."""
    return ~scores_PGN.isnan().all(-1).any(-1)


def both_fail(scores_PGN: Tensor) -> Tensor:
    """Tell per prompt whether both modes have a valid rollout and none scores above 0 (P,)."""
    return decided(scores_PGN) & (scores_PGN.nan_to_num() <= 0).flatten(1).all(-1)


def inter_rewards(wins_P: Tensor, shape: torch.Size) -> Tensor:
    """Return 1 for every rollout of the winning mode, else 0, broadcast to (P, G, N)."""
    rewards_PG = torch.stack([wins_P, ~wins_P], dim=1).float()
    return rewards_PG[:, :, None].expand(shape)


def drop_invalid(advantages_PGN: Tensor, scores_PGN: Tensor) -> Tensor:
    """Return the advantages with 0 for invalid rollouts."""
    return torch.where(scores_PGN.isnan(), torch.zeros_like(advantages_PGN), advantages_PGN)
