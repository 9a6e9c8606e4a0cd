"""Whether a model can be trained the way it is done here: packed rows, and logits straight from the output matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel

from lhrm_train.config import ConfigError
from lhrm_train.data import Group, Sample, collate_groups
from lhrm_train.scorer import TokenScorer

TOLERANCE = 1e-3  # of the largest logit, in fp32


def check_positions(directory: Path, row_length: int) -> None:
    """Raise ConfigError where rows of `row_length` tokens go beyond the positions or the window of the model."""
    config: Any = AutoConfig.from_pretrained(directory).get_text_config()
    positions = getattr(config, "max_position_embeddings", None) or row_length
    if row_length > positions:
        raise ConfigError(
            f"row_length = {row_length}: the model has {positions} positions; base.stretch_positions raises them"
        )
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    slides = kinds is None or "sliding_attention" in kinds
    if slides and window and window < row_length:
        raise ConfigError(f"row_length = {row_length}: the model attends to the last {window} tokens only")


@torch.inference_mode()
def packed_difference(lm: PreTrainedModel, ids: list[int]) -> float:
    """Return how far logits of packed rows are from the model's own, relative to the largest.

    Far means that the model scales or caps its logits behind the output matrix, or that its layers do not follow an
    attention mask (recurrent ones), so that one sample would run into the next. `ids` are at least six.
    """
    half = len(ids) // 2
    prompt, left, right = ids[: half - 1], ids[half - 1 : half + 1], ids[half + 1 :]
    groups = [Group(prompt, (left, right), (0, 1)), Group(right, (left,), (2,))]
    samples = [Sample(prompt, left), Sample(prompt, right), Sample(right, left)]
    batch = collate_groups(groups, [[0, 1]], sum(map(len, groups))).to(lm.device)
    alone = torch.cat([_own_logits(lm, sample) for sample in samples])
    gap = (TokenScorer(lm)(batch) - alone).abs().max() / alone.abs().max().clamp_min(1e-9)
    return float(gap)


def _own_logits(lm: Any, sample: Sample) -> Tensor:
    ids = torch.tensor([sample.prompt_ids + sample.completion_ids], device=lm.device)
    first = len(sample.prompt_ids) - 1
    logits: Tensor = lm(input_ids=ids).logits[0, first : ids.shape[1] - 1].float()
    return logits
