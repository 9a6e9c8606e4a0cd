"""Samples, packing and batches: from token ids to the tensors both training stages share.

Axes: B rows, T positions of a row, M trained tokens of a batch (completion tokens, opening tag first).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """One prompt with its completion; the completion begins with the opening tag (the decision)."""

    prompt_ids: list[int]
    completion_ids: list[int]

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)


@dataclass(frozen=True)
class Batch:
    """Packed rows. Only completion tokens are trained; each is predicted from the position before it.

    `mask_B1TT` is True where attention is allowed: causal, within one sample.
    `source_M` indexes the flattened (B*T) positions that predict `target_M`; `sample_M` is the sample
    each trained token belongs to and `decision_M` is True on opening tags.
    """

    input_BT: Tensor
    position_BT: Tensor
    mask_B1TT: Tensor
    source_M: Tensor
    target_M: Tensor
    sample_M: Tensor
    decision_M: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on `device`."""
        return Batch(**{field.name: getattr(self, field.name).to(device) for field in dataclasses.fields(self)})

    @property
    def trained_tokens(self) -> int:
        """Number of trained tokens, the denominator of a token mean."""
        return int(self.target_M.numel())


def pack(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Best-fit decreasing: return rows of sample indices, none longer than `row_length` tokens.

    Raises ValueError when a sample is longer than a row.
    """
    rows: list[list[int]] = []
    free: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        need = lengths[index]
        if need > row_length:
            raise ValueError(f"sample of {need} tokens does not fit a row of {row_length}")
        fitting = [row for row, space in enumerate(free) if space >= need]
        if fitting:
            best = min(fitting, key=free.__getitem__)
            rows[best].append(index)
            free[best] -= need
        else:
            rows.append([index])
            free.append(row_length - need)
    return rows


def collate(samples: Sequence[Sample], rows: Sequence[Sequence[int]], row_length: int) -> Batch:
    """Lay out `rows` of sample indices as one batch; padding positions attend to themselves only."""
    count = len(rows)
    input_BT = torch.zeros(count, row_length, dtype=torch.long)
    position_BT = torch.zeros(count, row_length, dtype=torch.long)
    segment_BT = torch.arange(row_length).neg().sub(1).repeat(count, 1)
    source: list[int] = []
    target: list[int] = []
    owner: list[int] = []
    decision: list[bool] = []
    for b, row in enumerate(rows):
        offset = 0
        for segment, index in enumerate(row):
            sample = samples[index]
            ids, start = sample.prompt_ids + sample.completion_ids, len(sample.prompt_ids)
            end = offset + len(ids)
            input_BT[b, offset:end] = torch.tensor(ids)
            position_BT[b, offset:end] = torch.arange(len(ids))
            segment_BT[b, offset:end] = segment
            first = b * row_length + offset + start - 1
            source += range(first, first + len(sample.completion_ids))
            target += sample.completion_ids
            owner += [index] * len(sample.completion_ids)
            decision += [True] + [False] * (len(sample.completion_ids) - 1)
            offset = end
    same = segment_BT[:, :, None] == segment_BT[:, None, :]
    causal = torch.ones(row_length, row_length, dtype=torch.bool).tril()
    return Batch(
        input_BT=input_BT,
        position_BT=position_BT,
        mask_B1TT=(same & causal)[:, None],
        source_M=torch.tensor(source, dtype=torch.long),
        target_M=torch.tensor(target, dtype=torch.long),
        sample_M=torch.tensor(owner, dtype=torch.long),
        decision_M=torch.tensor(decision, dtype=torch.bool),
    )
