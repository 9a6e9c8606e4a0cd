"""One process or many, CPU or GPU: what both trainers ask of accelerate."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import nn

from lhrm_train.scorer import TokenScorer
from lhrm_train.sharding import shard


def accelerator() -> Accelerator:
    """Return the process's accelerator: bf16 compute, on the GPU where there is one."""
    return Accelerator(mixed_precision="bf16", cpu=not torch.cuda.is_available())


def total(accelerator: Accelerator, value: float) -> float:
    """Return the sum of `value` over all processes."""
    if accelerator.num_processes == 1:
        return value
    summed = accelerator.reduce(torch.tensor(float(value), device=accelerator.device), "sum")
    return float(summed.item())


def distribute(accelerator: Accelerator, scorer: TokenScorer, *, split: bool) -> nn.Module:
    """Return the scorer as it trains on all processes: whole on each of them, or split over them."""
    if split and accelerator.num_processes > 1:
        shard(scorer, accelerator.device)
        return scorer
    trained: nn.Module = accelerator.prepare(scorer)
    return trained
