"""The one forward pass that both training stages and evaluation share: packed rows in, log-probabilities out."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from lhrm_train.data import Batch


class TokenScorer(nn.Module):
    """A causal LM whose forward returns logits only at the positions that predict trained tokens."""

    def __init__(self, lm: PreTrainedModel) -> None:
        super().__init__()
        self.lm = lm

    def forward(self, batch: Batch) -> Tensor:
        """Return fp32 logits (M, V)."""
        hidden = self.lm.base_model(
            input_ids=batch.input_BT, position_ids=batch.position_BT, attention_mask=batch.mask(), use_cache=False
        ).last_hidden_state
        picked = hidden.flatten(0, 1).index_select(0, batch.source_M)
        logits: Tensor = self.lm.get_output_embeddings()(picked)
        return logits.float()


def target_logprobs(logits_MV: Tensor, target_M: Tensor) -> Tensor:
    """Return log p(target) for every trained token, shape (M,)."""
    return -F.cross_entropy(logits_MV, target_M, reduction="none")
