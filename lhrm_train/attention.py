"""Attention that computes no scores between the groups of a packed row, for CPUs.

In a row of many short conversations most of the scores are masked: groups of about one length are taken out of their
rows, attend each in its own square, and are put back. transformers calls it through its registry of attention
functions (https://huggingface.co/docs/transformers/attention_interface).

Axes: B rows, T positions of a row, N places in all squares together, G groups of one block, L the longest of these,
H heads, D of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from lhrm_train.data import Batch

GROUPED = "lhrm_grouped"
# A block holds groups down to this share of its longest: fewer blocks are fewer calls, more of them less padding.
SHORTEST_IN_BLOCK = 0.65
UNKNOWN = ("softcap", "sliding_window", "s_aux")


@dataclass(frozen=True)
class Block:
    """Groups that attend together, each in a square; `mask_GLL` is added to their scores."""

    mask_GLL: Tensor

    @property
    def places(self) -> int:
        """How many places its groups have together."""
        return self.mask_GLL.shape[0] * self.mask_GLL.shape[-1]


@dataclass(frozen=True)
class Grouping:
    """`position_N` is the flattened (B*T) position of each place, `place_BT` the place of each position.

    Places behind a short group repeat its last position, and padding of a row has the place 0: neither is read.
    """

    position_N: Tensor
    place_BT: Tensor
    blocks: tuple[Block, ...]


def register() -> None:
    """Make the attention known to transformers as `GROUPED`."""
    AttentionInterface.register(GROUPED, grouped_attention)
    AttentionMaskInterface.register(GROUPED, sdpa_mask)


def group_positions(batch: Batch, dtype: torch.dtype) -> Grouping:
    """Sort the groups of `batch` into blocks of about one length; masks are of `dtype`, as the scores are."""
    unit_BT, branch = batch.unit_BT, batch.branch_BT.flatten()
    begins_BT = torch.ones_like(unit_BT, dtype=torch.bool)
    begins_BT[:, 1:] = unit_BT[:, 1:] != unit_BT[:, :-1]
    starts = begins_BT.flatten().nonzero().squeeze(1)
    lengths = torch.diff(starts, append=starts.new_tensor([unit_BT.numel()]))
    real = unit_BT.flatten()[starts] >= 0  # each position of the padding is a unit of its own, below 0
    lengths, order = lengths[real].sort(descending=True)
    starts = starts[real][order]
    place = torch.zeros_like(branch)
    positions: list[Tensor] = []
    blocks: list[Block] = []
    done = begin = 0
    while done < len(starts):
        longest = int(lengths[done])
        count = int((lengths[done:] >= SHORTEST_IN_BLOCK * longest).sum())
        of_block = slice(done, done + count)
        offsets_L = torch.arange(longest, device=place.device)
        inside_GL = offsets_L < lengths[of_block, None]
        position_GL = starts[of_block, None] + offsets_L.minimum(lengths[of_block, None] - 1)
        place[position_GL[inside_GL]] = begin + inside_GL.flatten().nonzero().squeeze(1)
        positions.append(position_GL.flatten())
        blocks.append(Block(_mask(branch[position_GL], dtype)))
        done, begin = done + count, begin + position_GL.numel()
    return Grouping(torch.cat(positions), place.view_as(unit_BT), tuple(blocks))


def _mask(branch_GL: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what is added to scores (G, L, L): causal, to the prompt and within one completion, as Batch.mask."""
    to_prompt = branch_GL[:, None, :] == 0
    allowed = (to_prompt | (branch_GL[:, None, :] == branch_GL[:, :, None])).tril()
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, torch.finfo(dtype).min)


def grouped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    *,
    grouping: Grouping | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Return (B, T, H, D) for query (B, H, T, D), key and value with as many heads or a divisor of them.

    Without `grouping`, as where a reference samples, it is torch's own attention by `attention_mask`, which is not read
    otherwise. Raises ValueError for what would change the scores in another way than `grouping` does.
    """
    if grouping is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **others)
    if unknown := [name for name in UNKNOWN if others.get(name) is not None]:
        raise ValueError(f"grouped attention knows no {', '.join(unknown)}")
    rows, heads, length, _ = query.shape
    taken = [x.transpose(1, 2).flatten(0, 1).index_select(0, grouping.position_N) for x in (query, key, value)]
    # Split, not sliced: the gradient of a slice is as large as all blocks together.
    parts = zip(*(x.split([block.places for block in grouping.blocks]) for x in taken), strict=True)
    out = []
    for block, part in zip(grouping.blocks, parts, strict=True):
        q, k, v = (x.unflatten(0, (len(block.mask_GLL), -1)).transpose(1, 2) for x in part)
        k, v = (x.repeat_interleave(heads // x.shape[1], 1) if x.shape[1] < heads else x for x in (k, v))
        scores = (q * scaling) @ k.transpose(-1, -2) + block.mask_GLL[:, None]
        shares = F.dropout(scores.softmax(-1), dropout, module.training)
        out.append((shares @ v).transpose(1, 2).flatten(0, 1))
    back = torch.cat(out).index_select(0, grouping.place_BT.flatten())
    return back.view(rows, length, heads, -1), None
