"""Sampling from the policy: forced completions and the probability of thinking."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedModel,
    StoppingCriteria,
    StoppingCriteriaList,
)

from lhrm_train.decoding import Draw, set_decoding_attention
from lhrm_train.format import ChatTokenizer, Mode


@dataclass(frozen=True)
class Choice:
    """What the model would choose at temperature 1: P(think) renormalised over both tags, and their mass."""

    p_think: float
    mass: float


def for_sampling(lm: PreTrainedModel) -> PreTrainedModel:
    """Freeze `lm`, switch it to evaluation and to the attention that decodes fastest; return it."""
    lm.requires_grad_(False)
    lm.eval()
    if lm.device.type == "cpu":
        set_decoding_attention(lm)
    return lm


def _left_pad(prompts: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad)
    mask = torch.zeros(len(prompts), width, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    return ids.to(device), mask.to(device)


def _cut(ids: list[int], end: int) -> list[int]:
    return ids[: ids.index(end) + 1] if end in ids else ids


class _HalfEnded(StoppingCriteria):
    """Stops a batch when at least half of its rows have ended."""

    def __init__(self, end: int) -> None:
        self._end = end

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        # Ended rows are padded with the end of turn.
        ended = input_ids[:, -1] == self._end
        return (ended.sum() * 2 >= len(ended)).expand(len(ended))


@dataclass(frozen=True)
class _Started:
    """Rows to complete: ids and mask (rows, width), and the keys and values of all their tokens but the last."""

    ids: Tensor
    mask: Tensor
    cache: Any


def _start(lm: PreTrainedModel, prompts: Sequence[Sequence[int]], samples: int, pad: int) -> _Started:
    """Compute each prompt but for its last token once, for all of its `samples` neighbouring rows."""
    ids, mask = _left_pad(prompts, pad, lm.device)
    if samples == 1 or ids.shape[1] == 1:
        return _Started(ids.repeat_interleave(samples, 0), mask.repeat_interleave(samples, 0), None)
    known = mask[:, :-1]
    positions = (known.cumsum(-1) - 1).clamp(min=0)
    made = lm.base_model(input_ids=ids[:, :-1], attention_mask=known, position_ids=positions, use_cache=True)
    made.past_key_values.batch_repeat_interleave(samples)
    return _Started(ids.repeat_interleave(samples, 0), mask.repeat_interleave(samples, 0), made.past_key_values)


def _complete(
    lm: PreTrainedModel, started: _Started, config: GenerationConfig, end: int, temperature: float
) -> list[list[int]]:
    """Complete the rows of one batch, and drop those that ended from it whenever half of it did.

    Lengths differ much: most direct answers end after ten tokens, and the longest would compute all rows to its end.
    """
    ids, mask, cache = started.ids, started.mask, started.cache
    width, limit = ids.shape[1], ids.shape[1] + (config.max_new_tokens or 0)
    out: list[list[int]] = [[] for _ in ids]
    rows = torch.arange(len(ids), device=ids.device)
    while len(rows):
        config.max_new_tokens = limit - ids.shape[1]
        made: Any = lm.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=mask,
            past_key_values=cache,
            generation_config=config,
            stopping_criteria=StoppingCriteriaList([_HalfEnded(end)]),
            logits_processor=LogitsProcessorList([Draw(temperature)] if temperature > 0 else []),
        )
        whole: Tensor = made.sequences
        goes_on = (whole[:, -1] != end) & (whole.shape[1] < limit)
        for row, completed in zip(rows[~goes_on].tolist(), whole[~goes_on, width:].tolist(), strict=True):
            out[row] = _cut(completed, end)
        mask = torch.nn.functional.pad(mask, (0, whole.shape[1] - ids.shape[1]), value=1)[goes_on]
        ids, rows, cache = whole[goes_on], rows[goes_on], made.past_key_values
        cache.batch_select_indices(goes_on.nonzero().flatten())
    return out


@torch.no_grad()
def generate(
    lm: PreTrainedModel,
    tokenizer: ChatTokenizer,
    prompts: Sequence[Sequence[int]],
    samples: int,
    temperature: float,
    max_new_tokens: int,
    batch: int = 64,
    banned: Sequence[int] = (),
) -> list[list[list[int]]]:
    """Return `samples` completions of every prompt, which end with the end of turn or at `max_new_tokens`.

    About `batch` of them are made at once, at least all of one prompt. Ids in `banned` are never sampled. Temperature 0
    is greedy. Randomness comes from torch's global generator.
    """
    end = tokenizer.turn_end_id
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        eos_token_id=end,
        pad_token_id=end,
        do_sample=False,  # Draw has drawn
        return_dict_in_generate=True,
        suppress_tokens=list(banned) or None,
    )
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    out: list[list[list[int]]] = [[] for _ in prompts]
    together = max(1, batch // samples)
    for start in range(0, len(order), together):
        chosen = order[start : start + together]
        started = _start(lm, [prompts[i] for i in chosen], samples, end)
        completed = _complete(lm, started, copy(config), end, temperature)
        for place, index in enumerate(chosen):
            out[index] = completed[place * samples : (place + 1) * samples]
    return out


def generate_forced(
    lm: PreTrainedModel,
    tokenizer: ChatTokenizer,
    prompts: Sequence[Sequence[int]],
    mode: Mode,
    samples: int,
    temperature: float,
    max_new_tokens: int,
    batch: int = 64,
) -> list[list[list[int]]]:
    """Return `samples` completions per prompt with the tag of `mode` forced; the tag is not among the ids."""
    tag = tokenizer.tags.opening(mode)
    opened = [[*prompt, tag] for prompt in prompts]
    return generate(lm, tokenizer, opened, samples, temperature, max_new_tokens, batch)


@torch.no_grad()
def choices(
    lm: PreTrainedModel, tokenizer: ChatTokenizer, prompts: Sequence[Sequence[int]], batch: int = 256
) -> list[Choice]:
    """Return the decision of every prompt from the raw probabilities of the two opening tags."""
    tags = tokenizer.tags
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    out: list[Choice | None] = [None] * len(prompts)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        ids, mask = _left_pad([prompts[i] for i in chosen], tokenizer.turn_end_id, lm.device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        logits = lm(input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=1).logits[:, -1]
        both = logits.float().softmax(-1)[:, [tags.think, tags.no_think]]
        for index, (think, no_think) in zip(chosen, both.tolist(), strict=True):
            mass = think + no_think
            out[index] = Choice(p_think=think / mass if mass > 0 else 0.5, mass=mass)
    return [choice for choice in out if choice is not None]
