"""HGPO's clipped policy loss as a pure function (arXiv 2505.14631, section 3.3).

Axis: M trained tokens of a minibatch. Denominator: the number of rollouts of the update, as the paper
typesets it (tokens are summed, there is no 1/|o|).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lhrm_train.config import HGPOConfig

FORCING_RATE = 0.5


@dataclass(frozen=True)
class LossInputs:
    """Everything one update needs, one value per trained token (M,); `rollouts` is the denominator."""

    logp_M: Tensor
    old_logp_M: Tensor
    reference_logp_M: Tensor
    advantage_M: Tensor
    decision_M: Tensor
    rollouts: int


@dataclass(frozen=True)
class LossOutputs:
    """The scalar loss and what is worth logging: mean KL per token and the share of clipped tokens."""

    loss: Tensor
    kl: float
    clipped: float


def decision_terms(inputs: LossInputs, config: HGPOConfig) -> tuple[Tensor, Tensor]:
    """Return (old log-prob, advantage) with the opening tag treated as `decision_objective` says."""
    old_M, advantage_M = inputs.old_logp_M, inputs.advantage_M
    if config.decision_objective == "forcing_rate":
        old_M = torch.where(inputs.decision_M, torch.full_like(old_M, math.log(FORCING_RATE)), old_M)
    elif config.decision_objective == "winner":
        advantage_M = torch.where(inputs.decision_M, advantage_M.clamp(min=0), advantage_M)
    return old_M, advantage_M


def kl_estimate(logp_M: Tensor, reference_logp_M: Tensor) -> Tensor:
    """Return pi_ref/pi - log(pi_ref/pi) - 1 per token; the log-ratio is held within 20 against overflow."""
    log_ratio = (reference_logp_M - logp_M).clamp(-20, 20)
    return log_ratio.exp() - log_ratio - 1


def policy_loss(inputs: LossInputs, config: HGPOConfig) -> LossOutputs:
    """Return -[min(rho A, clip(rho) A) - beta KL], summed over tokens and divided by the rollouts."""
    old_M, advantage_M = decision_terms(inputs, config)
    clip = torch.full_like(old_M, config.clip)
    clip = torch.where(inputs.decision_M, torch.full_like(clip, config.decision_clip), clip)
    ratio = (inputs.logp_M - old_M).exp()
    clipped_ratio = torch.maximum(torch.minimum(ratio, 1 + clip), 1 - clip)
    gain = torch.minimum(ratio * advantage_M, clipped_ratio * advantage_M)
    kl = kl_estimate(inputs.logp_M, inputs.reference_logp_M)
    if not config.decision_in_kl:
        kl = torch.where(inputs.decision_M, torch.zeros_like(kl), kl)
    loss = (config.beta * kl - gain).sum() / inputs.rollouts
    bound = (clipped_ratio * advantage_M < ratio * advantage_M).float().mean()
    return LossOutputs(loss=loss, kl=kl.mean().item(), clipped=bound.item())
