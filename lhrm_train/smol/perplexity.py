"""Perplexity of answers that somebody else gave: how far a model has moved from its base's way of talking."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from pathlib import Path

from lhrm_train.config import DataConfig
from lhrm_train.format import Message, Mode, encode_chat
from lhrm_train.records import Row, records
from lhrm_train.smol.answers import SYSTEM


@dataclass(frozen=True)
class Perplexities:
    """Of a model and its base on `tokens` tokens of held-out answers of the base.

    The answers were sampled behind `answers.SYSTEM`, the model is asked without it, so the base is measured both ways.
    """

    model: float
    base: float
    base_with_system: float
    tokens: int

    @property
    def ratio(self) -> float:
        """How many times the base's perplexity the model's is, taking the base at its better one."""
        return self.model / min(self.base, self.base_with_system)


def perplexities(model: Path, base: Path, data: Path) -> Perplexities:
    """Measure all three. Raises what `perplexity` raises."""
    own, tokens = perplexity(model, data, Mode.NO_THINK)
    bare, _ = perplexity(base, data, None)
    behind_system, _ = perplexity(base, data, None, system=SYSTEM)
    return Perplexities(own, bare, behind_system, tokens)


def perplexity(
    checkpoint: Path, data: Path, mode: Mode | None, *, system: str = "", batch: int = 16
) -> tuple[float, int]:
    """Return the perplexity per answer token and the number of these tokens.

    `data` has a `prompt` and an `answer` in each line; `system` is a message before every prompt. With `mode` its
    opening tag stands before the answer, as in a trained model's own answers; None is for a base. Whatever ends an
    answer there (the tag that closes no-think, else the end of turn) remains a candidate: all may stop. The other tags
    are none, because those of a base are untrained. No tag and no end of turn is counted. Raises FormatError when
    `checkpoint` is none, DataError for data without answers.
    """
    import torch

    from lhrm_train.samplers import load_for_evaluation

    rows = [_texts(row) for row in records(DataConfig(source="jsonl", files=(str(data),)))]
    lm, tokenizer = load_for_evaluation(checkpoint)
    before = (Message("system", system),) if system else ()
    pairs = [
        (encode_chat(tokenizer, (*before, Message("user", prompt)), mode), tokenizer.encode_text(answer))
        for prompt, answer in rows
    ]
    never = set(astuple(tokenizer.tags)) - ({tokenizer.tags.no_think_end} if mode is Mode.NO_THINK else set())
    pairs.sort(key=lambda pair: len(pair[0]) + len(pair[1]))
    total, count = 0.0, 0
    for start in range(0, len(pairs), batch):
        part = pairs[start : start + batch]
        width = max(len(prompt) + len(answer) for prompt, answer in part)
        ids_BT = torch.full((len(part), width), tokenizer.turn_end_id)
        target_BT = torch.full((len(part), width), -100)
        for b, (prompt, answer) in enumerate(part):
            end = len(prompt) + len(answer)
            ids_BT[b, :end] = torch.tensor(prompt + answer)
            target_BT[b, len(prompt) : end] = torch.tensor(answer)
        # Padding stands on the right, so no answer token sees it.
        with torch.inference_mode():
            logits_BTV = lm(input_ids=ids_BT.to(lm.device)).logits[:, :-1].float()
            logits_BTV[..., list(never)] = -math.inf
        targets = target_BT[:, 1:].to(lm.device)
        total += float(torch.nn.functional.cross_entropy(logits_BTV.flatten(0, 1), targets.flatten(), reduction="sum"))
        count += int((targets >= 0).sum())
    return math.exp(total / count), count


def _texts(row: Row) -> tuple[str, str]:
    prompt, answer = (row.text(name, row.get(name)) for name in ("prompt", "answer"))
    if not answer.strip():
        row.fail("answer", answer, "the answer is empty")
    return prompt, answer
