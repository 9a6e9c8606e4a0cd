"""One process or many, CPU or GPU: what both trainers ask of accelerate."""

from __future__ import annotations

import torch
from accelerate import Accelerator, DistributedType
from torch import nn

from lhrm_train.config import ConfigError
from lhrm_train.scorer import TokenScorer
from lhrm_train.sharding import shard

KNOWN = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


def accelerator() -> Accelerator:
    """Return the process's accelerator: bf16 compute, on the GPU where there is one.

    Raises ConfigError where a launcher's configuration asks for another way of sharing the work.
    """
    made = Accelerator(mixed_precision="bf16", cpu=not torch.cuda.is_available())
    if made.distributed_type not in KNOWN:
        raise ConfigError(
            f"accelerate is configured for {made.distributed_type.value}: launch without it (plain torchrun); "
            "hft.shard and hgpo.shard split the weights"
        )
    return made


def total(accelerator: Accelerator, value: float) -> float:
    """Return the sum of `value` over all processes."""
    return sum(_all(accelerator, value))


def fewest(accelerator: Accelerator, value: int) -> int:
    """Return the smallest `value` of all processes."""
    return int(min(_all(accelerator, value)))


def most(accelerator: Accelerator, value: int) -> int:
    """Return the largest `value` of all processes."""
    return int(max(_all(accelerator, value)))


def mean_metrics(accelerator: Accelerator, metrics: dict[str, float]) -> dict[str, float]:
    """Return every metric's mean over all processes."""
    if accelerator.num_processes == 1:
        return metrics
    values = torch.tensor(list(metrics.values()), dtype=torch.float64, device=accelerator.device)
    means = accelerator.gather(values[None]).mean(0)
    return dict(zip(metrics, means.tolist(), strict=True))


def _all(accelerator: Accelerator, value: float) -> list[float]:
    if accelerator.num_processes == 1:
        return [value]
    one = torch.tensor([float(value)], dtype=torch.float64, device=accelerator.device)
    gathered: list[float] = accelerator.gather(one).tolist()
    return gathered


def distribute(accelerator: Accelerator, scorer: TokenScorer, *, split: bool) -> nn.Module:
    """Return the scorer as it trains on all processes: whole on each of them, or split over them."""
    if split and accelerator.num_processes > 1:
        shard(scorer, accelerator.device)
        return scorer
    trained: nn.Module = accelerator.prepare(scorer)
    return trained
