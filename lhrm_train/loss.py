"""The clipped policy loss as a pure function (arXiv 2505.14631, section 3.3).

Axis: M trained tokens of a minibatch. Denominator: the number of rollouts of the update, as the paper
typesets it (tokens are summed, there is no 1/|o|).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lhrm_train.config import HGPOConfig
from lhrm_train.objectives.base import TagTerms


@dataclass(frozen=True)
class LossInputs:
    """Everything one update needs, one value per trained token (M,); `rollouts` is the denominator."""

    logp_M: Tensor
    old_logp_M: Tensor
    reference_logp_M: Tensor
    advantage_M: Tensor
    decision_M: Tensor
    rollouts: float


@dataclass(frozen=True)
class LossOutputs:
    """The scalar loss and what is worth logging: mean KL per token and the share of clipped tokens."""

    loss: Tensor
    kl: float
    clipped: float


def kl_estimate(logp_M: Tensor, reference_logp_M: Tensor) -> Tensor:
    """Return pi_ref/pi - log(pi_ref/pi) - 1 per token; the log-ratio is held within 20 against overflow."""
    log_ratio = (reference_logp_M - logp_M).clamp(-20, 20)
    return log_ratio.exp() - log_ratio - 1


def policy_loss(inputs: LossInputs, config: HGPOConfig, tag_terms: TagTerms) -> LossOutputs:
    """Return -[min(rho A, clip(rho) A) - beta KL], summed over tokens and divided by the rollouts."""
    decision_M = inputs.decision_M
    tag_old_M, tag_advantage_M = tag_terms(inputs.old_logp_M, inputs.advantage_M)
    old_M = torch.where(decision_M, tag_old_M, inputs.old_logp_M)
    advantage_M = torch.where(decision_M, tag_advantage_M, inputs.advantage_M)
    clip = torch.full_like(old_M, config.clip)
    clip = torch.where(decision_M, torch.full_like(clip, config.decision_clip), clip)
    ratio = (inputs.logp_M - old_M).exp()
    clipped_ratio = torch.maximum(torch.minimum(ratio, 1 + clip), 1 - clip)
    gain = torch.minimum(ratio * advantage_M, clipped_ratio * advantage_M)
    weight = torch.where(decision_M, torch.full_like(gain, config.decision_weight), torch.ones_like(gain))
    kl = kl_estimate(inputs.logp_M, inputs.reference_logp_M)
    if not config.decision_in_kl:
        kl = torch.where(decision_M, torch.zeros_like(kl), kl)
    loss = (config.beta * kl - weight * gain).sum() / inputs.rollouts
    bound = (clipped_ratio * advantage_M < ratio * advantage_M).float().mean()
    return LossOutputs(loss=loss, kl=kl.mean().item(), clipped=bound.item())
