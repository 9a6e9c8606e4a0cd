"""The one forward pass that both training stages and evaluation share: packed rows in, log-probabilities out."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from lhrm_train.attention import GROUPED, group_positions, register
from lhrm_train.data import Batch

# The head computes for a multiple of so many positions: on a CPU every new shape is compiled, and kept.
HEAD_ROWS = 64
LONGEST_GROUPED_ROW = 512  # tokens; the scores of a longer row may cost more than the fused kernel saves
SCORE_BYTES = 4  # scores and probabilities, bf16
GROUPED_BYTES = 4 << 30


def choose_attention(lm: PreTrainedModel, device: torch.device, rows: int, row_length: int) -> None:
    """Set the attention that trains fastest: on a CPU plain matmuls within each group, where rows are short.

    They keep their scores for the backward pass, unlike torch's fused kernel: not where these would fill the memory.
    """
    config = lm.config.get_text_config()
    kept = SCORE_BYTES * rows * row_length**2 * config.num_attention_heads * config.num_hidden_layers
    plain = lm.is_backend_compatible() and getattr(config, "sliding_window", None) is None
    if device.type == "cpu" and plain and row_length <= LONGEST_GROUPED_ROW and kept <= GROUPED_BYTES:
        register()
        lm.set_attn_implementation(GROUPED)


class TokenScorer(nn.Module):
    """A causal LM whose forward returns logits only at the positions that predict trained tokens."""

    def __init__(self, lm: PreTrainedModel) -> None:
        super().__init__()
        self.lm = lm

    def forward(self, batch: Batch) -> Tensor:
        """Return fp32 logits (M, V)."""
        hidden = self.lm.base_model(
            input_ids=batch.input_BT, position_ids=batch.position_BT, use_cache=False, **self._allowed(batch)
        ).last_hidden_state
        trained = batch.trained_tokens
        source = F.pad(batch.source_M, (0, -trained % HEAD_ROWS))
        picked = hidden.flatten(0, 1).index_select(0, source)
        logits: Tensor = self.lm.get_output_embeddings()(picked)
        return logits.float()[:trained]

    def _allowed(self, batch: Batch) -> dict[str, Any]:
        """Return what tells the attention which positions see which."""
        if self.lm.config._attn_implementation != GROUPED:
            return {"attention_mask": batch.mask()}
        device = batch.unit_BT.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.lm.dtype
        # The mask is for layers that do not pass the grouping on.
        return {"attention_mask": batch.mask(), "grouping": group_positions(batch, dtype)}


def target_logprobs(logits_MV: Tensor, target_M: Tensor) -> Tensor:
    """Return log p(target) for every trained token, shape (M,)."""
    return -F.cross_entropy(logits_MV, target_M, reduction="none")
