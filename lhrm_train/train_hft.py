"""Stage one, Hybrid Fine-Tuning: next-token loss on think and no-think answers (arXiv 2505.14631, section 3.2).

Departures from the paper: both modes come from one task suite, drawn unpaired per question, instead of
from different data sets; Muon for the matrices of a random base instead of AdamW on a pretrained one.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from tqdm import tqdm

from lhrm_train.checkpoint import is_checkpoint, load_model, load_state, save_checkpoint, save_state
from lhrm_train.config import HFTConfig
from lhrm_train.data import Batch, Sample, collate, pack
from lhrm_train.format import ChatTokenizer, Manifest, Mode, encode_answer, encode_chat
from lhrm_train.optim import Optimizers, trapezoid
from lhrm_train.scorer import TokenScorer
from lhrm_train.suite import mix
from lhrm_train.suite.verify import verify

POOL_BATCHES = 4


def hft_sample(tokenizer: ChatTokenizer, item: mix.Item, mode: Mode) -> Sample:
    """Encode one verified item in `mode`."""
    verify(item)
    return Sample(encode_chat(tokenizer, item.messages, None), encode_answer(tokenizer, mode, item.trace, item.answer))


def pool_rows(
    tokenizer: ChatTokenizer, config: HFTConfig, seed: int, pool: int
) -> tuple[list[Sample], list[list[int]]]:
    """Draw and pack pool number `pool`; the same for the same seed, so that a resumed run sees the same data."""
    rng = random.Random(f"hft-{seed}-{pool}")
    samples: list[Sample] = []
    wanted = POOL_BATCHES * config.rows * config.row_length
    total = 0
    while total < wanted:
        mode = Mode.THINK if rng.random() < config.think_share else Mode.NO_THINK
        sample = hft_sample(tokenizer, mix.sample_item(rng, "train", mix.CURRICULUM), mode)
        if len(sample) <= config.row_length:
            samples.append(sample)
            total += len(sample)
    rows = pack([len(sample) for sample in samples], config.row_length)
    rng.shuffle(rows)
    return samples, rows[: POOL_BATCHES * config.rows]


def batches(tokenizer: ChatTokenizer, config: HFTConfig, seed: int, start: int) -> Iterator[Batch]:
    """Yield the batch of step `start`, `start` + 1, ..."""
    for pool in itertools.count(start // POOL_BATCHES):
        samples, rows = pool_rows(tokenizer, config, seed, pool)
        for part in range(POOL_BATCHES):
            if pool * POOL_BATCHES + part >= start:
                chosen = rows[part * config.rows : (part + 1) * config.rows]
                yield collate(samples, chosen, config.row_length)


def train_hft(base: Path, out: Path, config: HFTConfig, seed: int, recipe: dict[str, object]) -> Path:
    """Train `base` and return the checkpoint directory; resumes from `out` and skips a finished run."""
    target, state_dir = out / "checkpoint", out / "state"
    if is_checkpoint(target):
        return target
    torch.manual_seed(seed)
    accelerator = Accelerator(mixed_precision="bf16", cpu=not torch.cuda.is_available())
    tokenizer = ChatTokenizer.load(base)
    lm = load_model(base)
    scorer = accelerator.prepare(TokenScorer(lm))
    optimizers = Optimizers(scorer, config.lr, config.betas, config.muon_lr, config.grad_clip)
    step = 0
    if state := load_state(state_dir):
        step = state["step"]
        lm.load_state_dict(state["model"])
        optimizers.load_state_dict(state["optimizers"])
    out.mkdir(parents=True, exist_ok=True)
    bar = tqdm(total=config.steps, initial=step, desc="HFT", unit="step", mininterval=5)
    with (out / "metrics.jsonl").open("a", encoding="utf-8") as metrics:
        for batch in itertools.islice(batches(tokenizer, config, seed, step), config.steps - step):
            with accelerator.autocast():
                logits_MV = scorer(batch)
            loss = F.cross_entropy(logits_MV, batch.target_M)  # mean over the batch's trained tokens
            accelerator.backward(loss)
            warmup = min(1.0, (step + 1) / config.warmup_steps)
            scale = warmup * trapezoid(step / config.steps, config.constant_share, config.final_lr_share)
            norm = optimizers.step(scale, loss.item())
            step += 1
            row = {
                "step": step,
                "loss": round(loss.item(), 5),
                "grad_norm": round(norm, 4),
                "lr_scale": round(scale, 4),
            }
            metrics.write(json.dumps(row) + "\n")
            bar.update()
            bar.set_postfix(loss=f"{loss.item():.4f}", refresh=False)
            if step % config.save_every == 0 and step < config.steps:
                metrics.flush()
                save_state(state_dir, {"step": step, "model": lm.state_dict(), "optimizers": optimizers.state_dict()})
    bar.close()
    manifest = Manifest.load(base)
    stage = Manifest(name=manifest.name, tags=manifest.tags, recipe={**recipe, "stage": "hft"})
    save_state(state_dir, {"step": step, "model": lm.state_dict(), "optimizers": optimizers.state_dict()})
    save_checkpoint(lm, stage, base, target)
    return target
