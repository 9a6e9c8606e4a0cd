"""Samples, packing and batches: from token ids to the tensors both training stages share.

Axes: B rows, T positions of a row, M trained tokens of a batch (completion tokens, opening tag first).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

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
class Group:
    """A prompt laid out once, with several completions; `numbers` are those of the samples.

    `forks` has the number of prompt tokens before each completion, ascending up to the whole prompt; empty: all of
    them before every one.
    """

    prompt_ids: list[int]
    completions: tuple[list[int], ...]
    numbers: tuple[int, ...]
    forks: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.prompt_ids) + sum(map(len, self.completions))


@dataclass(frozen=True)
class Batch:
    """Packed rows. Only completion tokens are trained; each is predicted from the position before it.

    `unit_BT` is the group a position belongs to and `branch_BT` its completion there, 0 in the prompt. `source_M`
    indexes the flattened (B*T) positions that predict `target_M`; `sample_M` is the sample each trained token belongs
    to and `decision_M` is True on opening tags.
    """

    input_BT: Tensor
    position_BT: Tensor
    unit_BT: Tensor
    branch_BT: Tensor
    source_M: Tensor
    target_M: Tensor
    sample_M: Tensor
    decision_M: Tensor

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on `device`."""
        return Batch(**{f.name: getattr(self, f.name).to(device) for f in dataclasses.fields(self)})

    def mask(self) -> Tensor:
        """Return (B, 1, T, T), True where attention is allowed: causal, to the own prompt and within one completion.

        It is made for each forward pass, on the batch's device: kept, it would be most of the memory of a step.
        """
        same = self.unit_BT[:, :, None] == self.unit_BT[:, None, :]
        same &= (self.branch_BT[:, None, :] == 0) | (self.branch_BT[:, :, None] == self.branch_BT[:, None, :])
        return same.tril()[:, None]

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


def share_prompts(samples: Sequence[Sample], size: int, row_length: int) -> list[Group]:
    """Lay every `size` neighbouring samples, which have one prompt, out as one group, or more where a row is short.

    Raises ValueError when neighbours have different prompts.
    """
    groups: list[Group] = []
    for start in range(0, len(samples), size):
        prompt = samples[start].prompt_ids
        numbers: list[int] = []
        length = len(prompt)
        for number in range(start, min(start + size, len(samples))):
            if samples[number].prompt_ids != prompt:
                raise ValueError(f"samples {start} and {number} do not share a prompt")
            need = len(samples[number].completion_ids)
            if numbers and length + need > row_length:
                groups.append(_group(samples, numbers))
                numbers, length = [], len(prompt)
            numbers.append(number)
            length += need
        groups.append(_group(samples, numbers))
    return groups


def _group(samples: Sequence[Sample], numbers: Sequence[int]) -> Group:
    completions = tuple(samples[number].completion_ids for number in numbers)
    return Group(samples[numbers[0]].prompt_ids, completions, tuple(numbers))


def nest_prompts(samples: Sequence[Sample]) -> Group:
    """Lay out the answered turns of one conversation as one group, numbered from 0: each prompt begins the next.

    Raises ValueError where one does not.
    """
    forks = tuple(len(sample.prompt_ids) for sample in samples)
    for number, following in enumerate(samples[1:]):
        if following.prompt_ids[: forks[number]] != samples[number].prompt_ids:
            raise ValueError(f"the prompt of sample {number} is not the beginning of the next")
    completions = tuple(sample.completion_ids for sample in samples)
    return Group(samples[-1].prompt_ids, completions, tuple(range(len(samples))), forks)


def collate(samples: Sequence[Sample], rows: Sequence[Sequence[int]], row_length: int) -> Batch:
    """Lay out `rows` of sample indices as one batch; padding positions attend to themselves only."""
    groups = [Group(s.prompt_ids, (s.completion_ids,), (i,)) for i, s in enumerate(samples)]
    return collate_groups(groups, rows, row_length)


@dataclass
class _Layout:
    """Rows under construction; the names are Batch's."""

    input_BT: Tensor
    position_BT: Tensor
    unit_BT: Tensor
    branch_BT: Tensor
    source: list[int] = field(default_factory=list)
    target: list[int] = field(default_factory=list)
    owner: list[int] = field(default_factory=list)
    decision: list[bool] = field(default_factory=list)

    @classmethod
    def empty(cls, rows: int, length: int) -> _Layout:
        zeros = torch.zeros(rows, length, dtype=torch.long)
        padding = torch.arange(length).neg().sub(1).repeat(rows, 1)
        return cls(zeros, zeros.clone(), padding, zeros.clone())

    def write(self, b: int, offset: int, ids: list[int], position: int, unit: int, branch: int) -> None:
        end = offset + len(ids)
        self.input_BT[b, offset:end] = torch.tensor(ids)
        self.position_BT[b, offset:end] = torch.arange(position, position + len(ids))
        self.unit_BT[b, offset:end] = unit
        self.branch_BT[b, offset:end] = branch

    def place(self, b: int, offset: int, unit: int, group: Group) -> int:
        """Lay `group` out from `offset` of row `b` on; return the offset behind it."""
        flat = b * self.input_BT.shape[1]
        forks = group.forks or (len(group.prompt_ids),) * len(group.completions)
        start, last_of_prompt = 0, offset
        for branch, (ids, number, fork) in enumerate(
            zip(group.completions, group.numbers, forks, strict=True), start=1
        ):
            if fork > start:
                self.write(b, offset, group.prompt_ids[start:fork], start, unit, 0)
                offset += fork - start
                start, last_of_prompt = fork, offset - 1
            self.write(b, offset, ids, start, unit, branch)
            self.source += [flat + last_of_prompt, *range(flat + offset, flat + offset + len(ids) - 1)]
            self.target += ids
            self.owner += [number] * len(ids)
            self.decision += [True] + [False] * (len(ids) - 1)
            offset += len(ids)
        return offset


def collate_groups(groups: Sequence[Group], rows: Sequence[Sequence[int]], row_length: int) -> Batch:
    """Lay out `rows` of group indices as one batch; the completions of a group do not see each other."""
    layout = _Layout.empty(len(rows), row_length)
    for b, row in enumerate(rows):
        offset = 0
        for unit, index in enumerate(row):
            offset = layout.place(b, offset, unit, groups[index])
    return Batch(
        input_BT=layout.input_BT,
        position_BT=layout.position_BT,
        unit_BT=layout.unit_BT,
        branch_BT=layout.branch_BT,
        source_M=torch.tensor(layout.source, dtype=torch.long),
        target_M=torch.tensor(layout.target, dtype=torch.long),
        sample_M=torch.tensor(layout.owner, dtype=torch.long),
        decision_M=torch.tensor(layout.decision, dtype=torch.bool),
    )
