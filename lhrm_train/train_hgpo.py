"""Stage two, Hybrid Group Policy Optimization: teach when thinking pays (arXiv 2505.14631, section 3.3).

One step: draw prompts, sample N/2 completions per forced mode, score them, compute the two advantages,
then a few clipped updates on minibatches of the rollouts. Departures from the paper are fields of
HGPOConfig with the paper's value beside them.
"""

from __future__ import annotations

import itertools
import random
import sys
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor

from lhrm_train.checkpoint import is_checkpoint, load_model, load_state, save_checkpoint, save_state, stage_manifest
from lhrm_train.config import ConfigError, HGPOConfig, RewardConfig
from lhrm_train.data import Batch, Group, collate_groups, pack, share_prompts
from lhrm_train.devices import accelerator, distribute, fewest, mean_metrics, most, total
from lhrm_train.experience import Experience, gather, reference_scores
from lhrm_train.format import ChatTokenizer
from lhrm_train.loop import take_steps
from lhrm_train.loss import LossInputs, LossOutputs, policy_loss
from lhrm_train.objectives import objective
from lhrm_train.optim import Optimizers, trapezoid
from lhrm_train.policy import Policy
from lhrm_train.problems import Problem
from lhrm_train.rewards import Judge
from lhrm_train.scorer import TokenScorer, choose_attention, target_logprobs
from lhrm_train.sharding import gather_model, shard, spread_model

FINAL_LR_SHARE = 0.03


class ProblemStream(Protocol):
    """Problems by step, the same for the same seed, so that a resumed run sees the same ones."""

    def draw(self, step: int, count: int) -> list[Problem]:
        """Return the problems of `step`."""
        ...


@dataclass(frozen=True)
class Scored:
    """A batch with the values that stay fixed during the step's updates, one per trained token (M,).

    A `muted` one adds nothing: it only keeps processes with fewer rows in step with the others.
    """

    batch: Batch
    advantage_M: Tensor
    old_logp_M: Tensor
    reference_logp_M: Tensor
    muted: bool = False


class HGPOTrainer:
    """Policy, reference, optimiser, problems and the step number; `step()` is the algorithm."""

    def __init__(self, init: Path, config: HGPOConfig, reward: RewardConfig, stream: ProblemStream, seed: int) -> None:
        self.config, self.seed, self.done = config, seed, 0
        self.accelerator: Accelerator = accelerator()
        torch.manual_seed(seed + self.accelerator.process_index)
        device = self.accelerator.device
        self.objective = objective(config.objective)
        self.tokenizer = ChatTokenizer.load(init)
        self.judge = Judge(self.tokenizer, reward)
        batch = config.micro_rows, config.row_length
        self.policy = Policy(init, config.lora, device, config.gradient_checkpointing, *batch)
        processes = self.accelerator.num_processes
        if config.prompts < processes:
            raise ConfigError(f"hgpo.prompts = {config.prompts}: fewer than the {processes} processes")
        self.scorer = self.policy.scorer
        self.trained = distribute(self.accelerator, self.scorer, split=config.shard)
        self.reference = self._make_reference(init)
        self.optimizers = Optimizers(
            self.scorer, config.lr, config.betas, config.grad_clip, weight_decay=config.weight_decay
        )
        self._stream = stream

    def _make_reference(self, init: Path) -> TokenScorer:
        # Adapters are switched off to give the reference; a reference renewed every step is the policy itself.
        renewed = self.config.refresh_reference_every == 1 and not self.objective.needs_reference
        if self.policy.has_adapters or renewed:
            return self.scorer
        model: Any = load_model(init)
        choose_attention(model, self.accelerator.device, self.config.micro_rows, self.config.row_length)
        reference = TokenScorer(model.to(self.accelerator.device).eval()).requires_grad_(False)
        if self.config.shard and self.accelerator.num_processes > 1:
            shard(reference, self.accelerator.device)
        return reference

    @property
    def failures(self) -> Counter[str]:
        """Failures of scorers by exception."""
        return self.judge.failures

    def step(self) -> dict[str, float]:
        """Run one outer iteration and return its metrics."""
        experience = self._gather()
        self.policy.lm.eval()
        minibatches = self._minibatches(experience)
        self.policy.lm.train()
        updates: list[dict[str, float]] = []
        for _ in range(self.config.epochs):
            for minibatch in minibatches:
                out = self._accumulate(minibatch)
                norm = self.optimizers.step(self._lr_scale(len(updates)), out["loss"])
                updates.append({**out, "grad_norm": norm})
        self.done += 1
        every = self.config.refresh_reference_every
        if every > 1 and self.done % every == 0:
            self.reference.load_state_dict(self.scorer.state_dict())
        means = {name: sum(row[name] for row in updates) / len(updates) for name in updates[0]}
        metrics = mean_metrics(self.accelerator, {**experience.metrics, **means})
        return {"step": self.done, "updates": len(updates), **metrics}

    def _gather(self) -> Experience:
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        problems = self._stream.draw(self.done, self.config.prompts)[rank::world]
        reference_P = None
        if self.objective.needs_reference:
            self.policy.lm.eval()  # with adapters it is the reference, too
            with self.policy.base() if self.policy.has_adapters else nullcontext():
                reference_P = reference_scores(self.reference.lm, self.tokenizer, self.judge, problems, self.config)
        return gather(self.policy.sampler(), self.tokenizer, self.judge, problems, self.config, reference_P)

    def _lr_scale(self, update: int) -> float:
        updates = self.config.minibatches * self.config.epochs
        done = self.done * updates + update
        warmup = min(1.0, (done + 1) / max(1, self.config.warmup_updates))
        return warmup * trapezoid(self.done / self.config.steps, self.config.decay_from, FINAL_LR_SHARE)

    def _minibatches(self, experience: Experience) -> list[list[Scored]]:
        # The completions of a prompt share its tokens, which would otherwise be computed N times.
        groups = share_prompts(experience.samples, self.config.rollouts, self.config.row_length)
        rows = pack([len(group) for group in groups], self.config.row_length)
        random.Random(f"rows-{self.seed}-{self.done}").shuffle(rows)
        # All processes take the same number of updates, however many rows each has.
        parts = min(self.config.minibatches, fewest(self.accelerator, len(rows)))
        cuts = [len(rows) * part // parts for part in range(parts + 1)]
        return [self._minibatch(experience, groups, rows[a:b]) for a, b in itertools.pairwise(cuts)]

    def _minibatch(self, experience: Experience, groups: list[Group], rows: list[list[int]]) -> list[Scored]:
        micro = self.config.micro_rows
        parts = [rows[at : at + micro] for at in range(0, len(rows), micro)]
        # Split weights are gathered in every pass, so that all processes must take equally many.
        missing = most(self.accelerator, len(parts)) - len(parts)
        scored = [self._scored(experience, groups, part) for part in parts]
        return scored + [replace(self._scored(experience, groups, rows[:1]), muted=True) for _ in range(missing)]

    @torch.no_grad()
    def _scored(self, experience: Experience, groups: list[Group], rows: list[list[int]]) -> Scored:
        batch = collate_groups(groups, rows, self.config.row_length).to(self.accelerator.device)
        response_M = experience.response_R.to(batch.sample_M.device)[batch.sample_M]
        decision_M = experience.decision_R.to(batch.sample_M.device)[batch.sample_M]
        with self.accelerator.autocast():
            old = target_logprobs(self.scorer(batch), batch.target_M)
            reference = self._reference_logprobs(batch, old)
        return Scored(batch, torch.where(batch.decision_M, decision_M, response_M), old, reference)

    def _reference_logprobs(self, batch: Batch, old: Tensor) -> Tensor:
        if self.config.refresh_reference_every == 1:
            return old
        with self.policy.base() if self.policy.has_adapters else nullcontext():
            return target_logprobs(self.reference(batch), batch.target_M)

    def _accumulate(self, minibatch: list[Scored]) -> dict[str, float]:
        mine = sum(int(part.batch.decision_M.sum()) for part in minibatch if not part.muted)
        # Gradients are averaged over processes, so the denominator is the mean number of rollouts per process.
        rollouts = total(self.accelerator, mine) / self.accelerator.num_processes
        outs: list[LossOutputs] = []
        for index, part in enumerate(minibatch):
            last = index == len(minibatch) - 1
            with nullcontext() if last else self.accelerator.no_sync(self.trained):
                out = self._loss(part, rollouts)
                self.accelerator.backward(out.loss * 0 if part.muted else out.loss)
            if not part.muted:
                outs.append(out)
        return {
            "loss": sum(out.loss.item() for out in outs),
            "kl": sum(out.kl for out in outs) / len(outs),
            "clipped": sum(out.clipped for out in outs) / len(outs),
        }

    def _loss(self, part: Scored, rollouts: float) -> LossOutputs:
        batch = part.batch.to(self.accelerator.device)
        with self.accelerator.autocast():
            logp = target_logprobs(self.trained(batch), batch.target_M)
        inputs = LossInputs(logp, part.old_logp_M, part.reference_logp_M, part.advantage_M, batch.decision_M, rollouts)
        return policy_loss(inputs, self.config, self.objective.terms(self.config))

    def save(self, directory: Path) -> None:
        """Write the training state; all processes must call."""
        state = self.policy.training_state(self.optimizers)
        if self.config.refresh_reference_every > 1:
            state["reference"] = gather_model(self.reference)
        if self.accelerator.is_main_process:
            save_state(directory, {"step": self.done, **state})

    def restore(self, directory: Path) -> None:
        """Continue from a saved state, if there is one."""
        if state := load_state(directory):
            self.done = state["step"]
            self.policy.load_training_state(state, self.optimizers)
            if "reference" in state:
                spread_model(self.reference, state["reference"])
            if rank := self.accelerator.process_index:
                torch.manual_seed(hash((self.seed, self.done, rank)))  # the saved random state is the first process's


def train_hgpo(
    init: Path,
    out: Path,
    config: HGPOConfig,
    reward: RewardConfig,
    stream: ProblemStream,
    seed: int,
    recipe: dict[str, object],
) -> Path:
    """Train the HFT checkpoint `init`; resumes from `out` and skips a finished run.

    Raises InterruptedRunError after saving when asked to stop, NonFiniteLossError before a bad update.
    """
    target = out / "checkpoint"
    if is_checkpoint(target):
        return target
    trainer = HGPOTrainer(init, config, reward, stream, seed)
    take_steps(trainer, "HGPO", config.steps, config.save_every, out, ("agreement", "think_rate"))
    if trainer.judge.first_failure:
        print(f"HGPO: the first failure of a scorer: {trainer.judge.first_failure}", file=sys.stderr)
    merged = trainer.policy.merged()
    if trainer.accelerator.is_main_process:
        save_checkpoint(merged, stage_manifest(init, {**recipe, "stage": "hgpo"}), init, target)
    trainer.accelerator.wait_for_everyone()
    return target
