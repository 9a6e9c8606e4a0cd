"""What makes sampling on a CPU fast: attention that does not repeat shared keys, draws that need one number a row.

Axes: B rows, H query heads, K heads of keys and values, T new positions, S all positions, D of a head, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, LogitsProcessor, PreTrainedModel
from transformers.masking_utils import eager_mask

SHARED = "lhrm_shared_keys"
# What some architectures do to their scores; plain attention knows it.
UNKNOWN = ("sliding_window", "attn_logit_softcapping")


def set_decoding_attention(lm: PreTrainedModel) -> None:
    """Set the attention that decodes fastest on a CPU.

    With one query per row PyTorch's fused attention takes twice as long there as two matrix products; where heads
    share keys and values, those of transformers copy them for every head at every step.
    """
    config = lm.config.get_text_config()
    shares = getattr(config, "num_key_value_heads", None) not in (None, config.num_attention_heads)
    plain = lm.is_backend_compatible() and all(getattr(config, name, None) is None for name in UNKNOWN)
    if not (shares and plain):
        lm.set_attn_implementation("eager")
        return
    AttentionInterface.register(SHARED, shared_attention)
    AttentionMaskInterface.register(SHARED, eager_mask)
    lm.set_attn_implementation(SHARED)


def shared_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **others: Any,
) -> tuple[Tensor, None]:
    """Return (B, T, H, D) for query (B, H, T, D), key and value (B, K, S, D); the mask (B, 1, T, S) is added.

    The queries of all heads that share keys are one matrix: nothing is copied. For inference: no dropout.
    """
    rows, heads, length, width = query.shape
    shared = key.shape[1]
    together = (query * scaling).reshape(rows, shared, heads // shared * length, width)
    scores = (together @ key.transpose(-1, -2)).view(rows, shared, heads // shared, length, -1)
    if attention_mask is not None:
        scores = scores + attention_mask[:, :, None]
    shares = scores.softmax(-1, dtype=torch.float32).to(query.dtype).view(rows, shared, together.shape[2], -1)
    return (shares @ value).view(rows, heads, length, width).transpose(1, 2).contiguous(), None


class Draw(LogitsProcessor):
    """Draws the next token at `temperature`: what is returned leaves the greedy choice nothing but the token drawn.

    torch.multinomial makes one random number for every token of the vocabulary, on a CPU a fifth of a step's time with
    50,000 of them; one number per row and the cumulated probabilities do.
    """

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return scores (B, V) that are -inf but for the token drawn."""
        # In fp64: in fp32 what is rare would vanish behind a sum near 1.
        cumulated = (scores.float() / self._temperature).softmax(-1).cumsum(-1, dtype=torch.float64)
        # Above 0 and at most the last sum: the first sum that reaches it is that of a token with some probability.
        drawn = (1 - torch.rand(len(scores), 1, dtype=torch.float64, device=scores.device)) * cumulated[:, -1:]
        token = torch.searchsorted(cumulated, drawn)
        return torch.full_like(scores, -torch.inf).scatter_(-1, token, 0.0)
