"""Stage one, Hybrid Fine-Tuning: next-token loss on think and no-think answers (arXiv 2505.14631, section 3.2).

Departures from the paper are fields of HFTConfig with the paper's value beside them.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from accelerate import Accelerator

from lhrm_train.checkpoint import is_checkpoint, load_state, save_checkpoint, save_state, stage_manifest
from lhrm_train.config import HFTConfig
from lhrm_train.data import Batch
from lhrm_train.devices import accelerator, distribute, total
from lhrm_train.loop import take_steps
from lhrm_train.optim import Optimizers, cosine, trapezoid
from lhrm_train.policy import Policy


class BatchStream(Protocol):
    """Micro-batches by number, the same for the same seed, so that a resumed run sees the same data."""

    def batches(self, start: int, step: int = 1) -> Iterator[Batch]:
        """Yield micro-batch `start`, `start` + `step`, ... without end."""
        ...


class HFTTrainer:
    """Policy, optimiser, data and the step number; `step()` is the algorithm."""

    def __init__(self, base: Path, config: HFTConfig, stream: BatchStream, seed: int) -> None:
        torch.manual_seed(seed)
        self.config, self.done = config, 0
        self.failures: Counter[str] = Counter()  # nothing is scored here
        self.accelerator: Accelerator = accelerator()
        batch = config.rows, config.row_length
        self.policy = Policy(base, config.lora, self.accelerator.device, config.gradient_checkpointing, *batch)
        self.policy.lm.train()  # as loaded it is not, and then keeps every activation
        self.trained = distribute(self.accelerator, self.policy.scorer, split=config.shard)
        self.optimizers = Optimizers(
            self.policy.scorer,
            config.lr,
            config.betas,
            config.grad_clip,
            muon_lr=config.muon_lr,
            weight_decay=config.weight_decay,
        )
        self._stream = stream
        self._batches: Iterator[Batch] | None = None

    def step(self) -> dict[str, float]:
        """Run one update on `accumulation` micro-batches per process and return its metrics."""
        micro = [batch.to(self.accelerator.device) for batch in self._next_batches()]
        tokens = total(self.accelerator, sum(batch.trained_tokens for batch in micro))
        loss = 0.0
        for index, batch in enumerate(micro):
            last = index == len(micro) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.trained):
                with self.accelerator.autocast():
                    logits_MV = self.trained(batch)
                nll = F.cross_entropy(logits_MV, batch.target_M, reduction="sum")
                # The mean over all micro-batches and processes; accelerate averages gradients over processes.
                self.accelerator.backward(nll * self.accelerator.num_processes / tokens)
            loss += nll.item()
        loss = total(self.accelerator, loss) / tokens
        scale = self._lr_scale()
        norm = self.optimizers.step(scale, loss)
        self.done += 1
        return {"step": self.done, "loss": loss, "grad_norm": norm, "lr_scale": scale, "tokens": tokens}

    def _next_batches(self) -> list[Batch]:
        if self._batches is None:
            world, rank = self.accelerator.num_processes, self.accelerator.process_index
            start = self.done * self.config.accumulation * world
            self._batches = self._stream.batches(start + rank, world)
        return list(itertools.islice(self._batches, self.config.accumulation))

    def _lr_scale(self) -> float:
        config = self.config
        warmup_steps = round(config.warmup_share * config.steps) if config.warmup_share else config.warmup_steps
        warmup = min(1.0, (self.done + 1) / max(1, warmup_steps))
        progress = self.done / config.steps
        if config.schedule == "cosine":
            # The cosine begins where the warm-up ends, so that the peak is the rate that was asked for.
            rest = (self.done - warmup_steps) / max(1, config.steps - warmup_steps)
            return warmup * cosine(max(0.0, rest), config.final_lr_share)
        return warmup * trapezoid(progress, config.constant_share, config.final_lr_share)

    def save(self, directory: Path) -> None:
        """Write the training state; all processes must call."""
        state = self.policy.training_state(self.optimizers)
        if self.accelerator.is_main_process:
            save_state(directory, {"step": self.done, **state})

    def restore(self, directory: Path) -> None:
        """Continue from a saved state, if there is one."""
        if state := load_state(directory):
            self.done = state["step"]
            self.policy.load_training_state(state, self.optimizers)


def train_hft(
    base: Path, out: Path, config: HFTConfig, stream: BatchStream, seed: int, recipe: dict[str, object]
) -> Path:
    """Train `base` and return the checkpoint directory; resumes from `out` and skips a finished run.

    Raises InterruptedRunError after saving when asked to stop, NonFiniteLossError before a bad update.
    """
    target = out / "checkpoint"
    if is_checkpoint(target):
        return target
    trainer = HFTTrainer(base, config, stream, seed)
    take_steps(trainer, "HFT", config.steps, config.save_every, out, ("loss",))
    merged = trainer.policy.merged()
    if trainer.accelerator.is_main_process:
        save_checkpoint(merged, stage_manifest(base, {**recipe, "stage": "hft"}), base, target)
    trainer.accelerator.wait_for_everyone()
    return target
