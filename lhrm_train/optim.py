"""Optimisers and their schedule: Muon on the layers' matrices, AdamW on the rest."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from lhrm_train.sharding import whole


class NonFiniteLossError(RuntimeError):
    """The loss or gradient is not finite; raised before the update, so the weights are still good."""


class Optimizers:
    """A set of torch optimisers stepped together with one learning-rate scale."""

    def __init__(
        self,
        model: nn.Module,
        lr: float,
        betas: tuple[float, float],
        grad_clip: float,
        *,
        muon_lr: float = 0.0,
        weight_decay: float = 0.0,
    ) -> None:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        matrices = [p for name, p in named if muon_lr and p.ndim == 2 and ".layers." in name]
        chosen = {id(p) for p in matrices}
        rest = [p for _, p in named if id(p) not in chosen]
        self.parameters = [p for _, p in named]
        self.grad_clip = grad_clip
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(rest, lr=lr, betas=betas, weight_decay=weight_decay)
        ]
        if matrices:
            self.parts.append(torch.optim.Muon(matrices, lr=muon_lr, weight_decay=0.01))
        self._base = [part.param_groups[0]["lr"] for part in self.parts]

    def step(self, scale: float, loss: float) -> float:
        """Clip, update with learning rates times `scale`, clear gradients; return the gradient norm.

        Raises NonFiniteLossError before anything is changed.
        """
        norm = whole(torch.nn.utils.clip_grad_norm_(self.parameters, self.grad_clip))
        if not (math.isfinite(loss) and torch.isfinite(norm)):
            raise NonFiniteLossError(f"loss {loss}, gradient norm {norm.item()}")
        for part, base in zip(self.parts, self._base, strict=True):
            part.param_groups[0]["lr"] = base * scale
            part.step()
            part.zero_grad(set_to_none=True)
        return float(norm)

    def state_dict(self) -> list[dict[str, object]]:
        """Return the state of every optimiser."""
        return [part.state_dict() for part in self.parts]

    def load_state_dict(self, states: Iterable[dict[str, object]]) -> None:
        """Restore what state_dict returned."""
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)


def trapezoid(progress: float, constant_share: float, final_share: float) -> float:
    """Learning-rate scale: 1 until `constant_share` of the run, then linear down to `final_share`."""
    if progress < constant_share:
        return 1.0
    return max(final_share, (1.0 - progress) / (1.0 - constant_share))


def cosine(progress: float, final_share: float) -> float:
    """Learning-rate scale: half a cosine from 1 down to `final_share`."""
    return final_share + (1 - final_share) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
