"""Weights, gradients and optimiser state split over the processes: torch's own FSDP2, nothing more.

States are gathered to the first process before they are saved and spread from it when they are restored, so that a
saved state does not depend on the number of processes.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from lhrm_train.scorer import TokenScorer

GATHER = StateDictOptions(full_state_dict=True, cpu_offload=True)
SPREAD = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)


def shard(scorer: TokenScorer, device: torch.device) -> None:
    """Split the scorer's parameters over the processes of the default group, layer by layer; in place."""
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    names = scorer.lm._no_split_modules or []
    for module in scorer.lm.modules():
        if type(module).__name__ in names:
            fully_shard(module, mesh=mesh)
    fully_shard(scorer, mesh=mesh)


def is_sharded(module: nn.Module) -> bool:
    """Tell whether the module's parameters are split over processes."""
    return any(isinstance(parameter, DTensor) for parameter in module.parameters())


def whole(value: Tensor) -> Tensor:
    """Return a tensor with all of its elements; of a split one, all processes must ask together."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def gather_model(module: nn.Module) -> dict[str, Any]:
    """Return the whole state; of split parameters on the first process alone, and all must call."""
    return get_model_state_dict(module, options=GATHER) if is_sharded(module) else module.state_dict()


def spread_model(module: nn.Module, state: dict[str, Any]) -> None:
    """Restore what gather_model returned; of split parameters the first process's state counts, and all must call."""
    if is_sharded(module):
        set_model_state_dict(module, state, options=SPREAD)
    else:
        module.load_state_dict(state)


def gather_optimizer(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the optimiser's whole state on the first process; all must call."""
    return get_optimizer_state_dict(module, optimizer, options=GATHER)


def spread_optimizer(module: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Restore what gather_optimizer returned; only the first process's state counts; all must call."""
    set_optimizer_state_dict(module, optimizer, state, options=SPREAD)
