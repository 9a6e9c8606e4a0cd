"""Stage two, Hybrid Group Policy Optimization: teach when thinking pays (arXiv 2505.14631, section 3.3).

One step: draw prompts, sample N/2 completions per forced mode, score them, compute the two advantages,
then a few clipped updates on minibatches of the rollouts. Departures from the paper are fields of
HGPOConfig with the paper's value beside them.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedModel

from lhrm_train.advantages import NO_THINK, THINK, Advantages, hgpo
from lhrm_train.checkpoint import is_checkpoint, load_model, load_state, save_checkpoint, save_state
from lhrm_train.config import HGPOConfig
from lhrm_train.data import Batch, Sample, collate, pack
from lhrm_train.format import ChatTokenizer, Manifest, Mode, encode_chat
from lhrm_train.loss import LossInputs, policy_loss
from lhrm_train.optim import Optimizers, trapezoid
from lhrm_train.rewards import judge
from lhrm_train.rollout import choices, generate_forced, serving_copy
from lhrm_train.scorer import TokenScorer, target_logprobs
from lhrm_train.suite import mix

FINAL_LR_SHARE = 0.03


@dataclass(frozen=True)
class Rollouts:
    """The rollouts of one step, flattened in (P, G, N) order, with their two advantages per rollout."""

    samples: list[Sample]
    response_R: Tensor
    decision_R: Tensor
    metrics: dict[str, float]


@dataclass(frozen=True)
class Scored:
    """A batch with the log-probabilities that stay fixed during the step's updates."""

    batch: Batch
    advantage_M: Tensor
    old_logp_M: Tensor
    reference_logp_M: Tensor


def draw_prompts(seed: int, step: int, count: int) -> list[mix.Item]:
    """Return the prompts of `step`, the same for the same seed."""
    rng = random.Random(f"hgpo-{seed}-{step}")
    return [mix.sample_item(rng, "train") for _ in range(count)]


def roll_out(lm: PreTrainedModel, tokenizer: ChatTokenizer, items: list[mix.Item], config: HGPOConfig) -> Rollouts:
    """Sample, score and compare the two modes on every prompt."""
    policy = serving_copy(lm)
    prompts = [encode_chat(tokenizer, item.messages, None) for item in items]
    free = choices(policy, tokenizer, prompts)
    half = config.rollouts // 2
    samples_by_mode, scores = [], []
    for mode in (Mode.THINK, Mode.NO_THINK):
        drawn = generate_forced(policy, tokenizer, prompts, mode, half, config.temperature, config.max_new_tokens)
        judged = [
            [judge(tokenizer, item.answer, mode, ids) for ids in group]
            for item, group in zip(items, drawn, strict=True)
        ]
        scores.append(torch.tensor([[one.score for one in group] for group in judged]))
        tag = tokenizer.tags.opening(mode)
        samples_by_mode.append([[Sample(p, [tag, *ids]) for ids in g] for p, g in zip(prompts, drawn, strict=True)])
    scores_PGN = torch.stack(scores, dim=1)
    advantages = hgpo(scores_PGN, config.alpha, config.delta, config.mask_both_fail)
    flat = [sample for pair in zip(*samples_by_mode, strict=True) for group in pair for sample in group]
    metrics = _step_metrics(scores_PGN, advantages, torch.tensor([choice.p_think for choice in free]), flat)
    return Rollouts(flat, advantages.response_PGN.flatten(), advantages.decision_PGN.flatten(), metrics)


def _step_metrics(scores_PGN: Tensor, adv: Advantages, p_think_P: Tensor, flat: list[Sample]) -> dict[str, float]:
    tokens_PGN = torch.tensor([float(len(s.completion_ids)) for s in flat]).view_as(scores_PGN)
    return {
        "accuracy_think": scores_PGN[:, THINK].mean().item(),
        "accuracy_no_think": scores_PGN[:, NO_THINK].mean().item(),
        "tokens_think": tokens_PGN[:, THINK].mean().item(),
        "tokens_no_think": tokens_PGN[:, NO_THINK].mean().item(),
        "both_fail": adv.both_fail_P.float().mean().item(),
        "think_wins": adv.think_wins_P.float().mean().item(),
        "think_rate": (p_think_P >= 0.5).float().mean().item(),
        "p_think": p_think_P.mean().item(),
        "agreement": ((p_think_P >= 0.5) == adv.think_wins_P).float().mean().item(),
        "invalid": scores_PGN.isnan().float().mean().item(),
    }


def _advantages(batch: Batch, rollouts: Rollouts) -> Tensor:
    response_M, decision_M = rollouts.response_R[batch.sample_M], rollouts.decision_R[batch.sample_M]
    return torch.where(batch.decision_M, decision_M, response_M)


class HGPOTrainer:
    """Policy, reference, optimiser and the step number; `step()` is the algorithm."""

    def __init__(self, init: Path, config: HGPOConfig, seed: int) -> None:
        torch.manual_seed(seed)
        self.config, self.seed, self.done = config, seed, 0
        self.accelerator = Accelerator(mixed_precision="bf16", cpu=not torch.cuda.is_available())
        self.tokenizer = ChatTokenizer.load(init)
        self.lm = load_model(init)
        self.scorer = self.accelerator.prepare(TokenScorer(self.lm))
        self.reference = TokenScorer(load_model(init)).requires_grad_(False)
        self.optimizers = Optimizers(self.scorer, config.lr, config.betas, 0.0, config.grad_clip)

    def step(self) -> dict[str, float]:
        """Run one outer iteration and return its metrics."""
        items = draw_prompts(self.seed, self.done, self.config.prompts)
        rollouts = roll_out(self.lm, self.tokenizer, items, self.config)
        minibatches = self._minibatches(rollouts)
        losses: list[float] = []
        kls: list[float] = []
        clipped: list[float] = []
        norms: list[float] = []
        for _ in range(self.config.epochs):
            for minibatch in minibatches:
                loss, kl, bound = self._accumulate(minibatch)
                norms.append(self.optimizers.step(self._lr_scale(len(norms)), loss))
                losses.append(loss)
                kls.append(kl)
                clipped.append(bound)
        self.done += 1
        mean = {"loss": losses, "kl": kls, "clipped": clipped, "grad_norm": norms}
        return {"step": self.done, **rollouts.metrics, **{name: sum(v) / len(v) for name, v in mean.items()}}

    def _lr_scale(self, update: int) -> float:
        updates = self.config.minibatches * self.config.epochs
        done = self.done * updates + update
        warmup = min(1.0, (done + 1) / max(1, self.config.warmup_updates))
        return warmup * trapezoid(self.done / self.config.steps, self.config.decay_from, FINAL_LR_SHARE)

    def _minibatches(self, rollouts: Rollouts) -> list[list[Scored]]:
        rows = pack([len(sample) for sample in rollouts.samples], self.config.row_length)
        random.Random(f"rows-{self.seed}-{self.done}").shuffle(rows)
        size = -(-len(rows) // self.config.minibatches)
        micro = self.config.micro_rows
        return [
            [self._scored(rollouts, part[at : at + micro]) for at in range(0, len(part), micro)]
            for part in (rows[start : start + size] for start in range(0, len(rows), size))
        ]

    def _scored(self, rollouts: Rollouts, rows: list[list[int]]) -> Scored:
        batch = collate(rollouts.samples, rows, self.config.row_length)
        with torch.no_grad(), self.accelerator.autocast():
            old = target_logprobs(self.scorer(batch), batch.target_M)
            frozen = old if self.config.reference == "rollout" else None
            reference = target_logprobs(self.reference(batch), batch.target_M) if frozen is None else frozen
        return Scored(batch, _advantages(batch, rollouts), old, reference)

    def _accumulate(self, minibatch: list[Scored]) -> tuple[float, float, float]:
        rollouts = sum(int(part.batch.decision_M.sum()) for part in minibatch)
        loss, kl, clipped = 0.0, 0.0, 0.0
        for part in minibatch:
            with self.accelerator.autocast():
                logp = target_logprobs(self.scorer(part.batch), part.batch.target_M)
            inputs = LossInputs(
                logp, part.old_logp_M, part.reference_logp_M, part.advantage_M, part.batch.decision_M, rollouts
            )
            out = policy_loss(inputs, self.config)
            self.accelerator.backward(out.loss)
            loss += out.loss.item()
            kl += out.kl / len(minibatch)
            clipped += out.clipped / len(minibatch)
        return loss, kl, clipped

    def state(self) -> dict[str, object]:
        """Return what a resumed run needs."""
        return {"step": self.done, "model": self.lm.state_dict(), "optimizers": self.optimizers.state_dict()}

    def restore(self, directory: Path) -> None:
        """Continue from a saved state, if there is one."""
        if state := load_state(directory):
            self.done = state["step"]
            self.lm.load_state_dict(state["model"])
            self.optimizers.load_state_dict(state["optimizers"])


def steps(trainer: HGPOTrainer) -> Iterator[dict[str, float]]:
    """Yield the metrics of every remaining step."""
    for _ in itertools.repeat(None, trainer.config.steps - trainer.done):
        yield trainer.step()


def train_hgpo(init: Path, out: Path, config: HGPOConfig, seed: int, recipe: dict[str, object]) -> Path:
    """Train the HFT checkpoint `init`; resumes from `out` and skips a finished run."""
    target, state_dir = out / "checkpoint", out / "state"
    if is_checkpoint(target):
        return target
    trainer = HGPOTrainer(init, config, seed)
    trainer.restore(state_dir)
    out.mkdir(parents=True, exist_ok=True)
    bar = tqdm(total=config.steps, initial=trainer.done, desc="HGPO", unit="step", mininterval=5)
    with (out / "metrics.jsonl").open("a", encoding="utf-8") as log:
        for row in steps(trainer):
            log.write(json.dumps({name: round(value, 5) for name, value in row.items()}) + "\n")
            log.flush()
            bar.update()
            bar.set_postfix(agree=f"{row['agreement']:.3f}", think=f"{row['think_rate']:.2f}", refresh=False)
            if trainer.done % config.save_every == 0 and trainer.done < config.steps:
                save_state(state_dir, trainer.state())
    bar.close()
    manifest = Manifest.load(init)
    stage = Manifest(name=manifest.name, tags=manifest.tags, recipe={**recipe, "stage": "hgpo"})
    save_state(state_dir, trainer.state())
    save_checkpoint(trainer.lm, stage, init, target)
    return target
