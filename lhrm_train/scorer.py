"""The one forward pass that both training stages and evaluation share: packed rows in, log-probabilities out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from lhrm_train.data import Batch

# The head computes for a multiple of so many positions: on a CPU every new shape is compiled, and kept.
HEAD_ROWS = 64
LONGEST_EAGER_ROW = 512  # tokens; the scores of a longer row cost more than the fused kernel saves
SCORE_BYTES = 6  # probabilities as the softmax gives them, fp32, and as they are multiplied, bf16
EAGER_BYTES = 4 << 30


def choose_attention(lm: PreTrainedModel, device: torch.device, rows: int, row_length: int) -> None:
    """Set the attention that trains fastest: on a CPU torch's fused kernel loses to plain matmuls on short rows.

    Plain attention keeps its scores for the backward pass, unlike the kernel: not where they would fill the memory.
    """
    config = lm.config.get_text_config()
    kept = SCORE_BYTES * rows * row_length**2 * config.num_attention_heads * config.num_hidden_layers
    if device.type == "cpu" and row_length <= LONGEST_EAGER_ROW and kept <= EAGER_BYTES:
        lm.set_attn_implementation("eager")


class TokenScorer(nn.Module):
    """A causal LM whose forward returns logits only at the positions that predict trained tokens."""

    def __init__(self, lm: PreTrainedModel) -> None:
        super().__init__()
        self.lm = lm

    def forward(self, batch: Batch) -> Tensor:
        """Return fp32 logits (M, V)."""
        hidden = self.lm.base_model(
            input_ids=batch.input_BT, position_ids=batch.position_BT, attention_mask=self._mask(batch), use_cache=False
        ).last_hidden_state
        trained = batch.trained_tokens
        source = F.pad(batch.source_M, (0, -trained % HEAD_ROWS))
        picked = hidden.flatten(0, 1).index_select(0, source)
        logits: Tensor = self.lm.get_output_embeddings()(picked)
        return logits.float()[:trained]

    def _mask(self, batch: Batch) -> Tensor:
        """Return the mask as the attention takes it: the fused kernel booleans, plain attention what is added."""
        allowed = batch.mask()
        if self.lm.config._attn_implementation != "eager":
            return allowed
        device = allowed.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else self.lm.dtype
        lowest = torch.finfo(dtype).min
        return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, lowest)


def target_logprobs(logits_MV: Tensor, target_M: Tensor) -> Tensor:
    """Return log p(target) for every trained token, shape (M,)."""
    return -F.cross_entropy(logits_MV, target_M, reduction="none")
