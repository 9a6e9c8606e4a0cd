"""Turn a finite list of demonstrations into an endless, seeded, resumable stream of HFT batches.

A pass goes over the samples once; `Mixture.pass_order` decides which and in what order, a pool of neighbouring
samples is laid out in rows, and `rows` consecutive rows are a micro-batch. Every choice is a function of the seed
and of pass and pool number, so that batch k is the same however the run got there.
"""

from __future__ import annotations

import itertools
import math
import random
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lhrm_train.config import HFTConfig
from lhrm_train.data import Batch, Sample, collate, pack
from lhrm_train.format import ChatTokenizer, Mode, encode_answer, encode_chat
from lhrm_train.problems import Demonstration
from lhrm_train.sources import DataError, question_key

# Rows packed together: enough to fill them well, few enough that the time to pack grows linearly with the data.
POOL_ROWS = 128
# Batches sorted by length together: enough to save padding, few enough to keep a batch a random draw.
POOL_BATCHES = 16


@dataclass(frozen=True)
class MixtureReport:
    """Numbers of samples: kept in each mode, longer than a row, and no-think completions over the limit."""

    think: int
    no_think: int
    too_long: int
    over_no_think_max_tokens: int


def encode(tokenizer: ChatTokenizer, demonstration: Demonstration) -> Sample:
    """Encode a demonstration; the opening tag is the first completion token."""
    return Sample(
        encode_chat(tokenizer, demonstration.problem.messages, None),
        encode_answer(tokenizer, demonstration.mode, demonstration.reasoning, demonstration.answer),
    )


@dataclass(frozen=True)
class _Entry:
    """A kept sample; ids lie in arrays, which take a ninth of the space of lists of integers."""

    prompt_ids: array[int]
    completion_ids: array[int]
    mode: Mode
    question: str

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)

    @property
    def sample(self) -> Sample:
        return Sample(self.prompt_ids.tolist(), self.completion_ids.tolist())


class Mixture:
    """Batches of both modes from `demonstrations`, mixed as `config` says.

    Samples longer than `row_length` are left out, then no-think samples whose completion (answer, closing tag
    and end of turn, as a server counts it) is longer than `no_think_max_tokens`; `report` has their numbers.
    `steps` is the number of micro-batches of the whole run, over all processes; 0 takes it from `config` for
    one process. Only `think_first_share` depends on it. Raises DataError when a mode has no sample, in the data or,
    with `think_share` above 0, in one of the passes.
    """

    def __init__(
        self,
        demonstrations: Sequence[Demonstration],
        tokenizer: ChatTokenizer,
        config: HFTConfig,
        seed: int,
        steps: int = 0,
    ) -> None:
        self._config, self._seed, self._steps = config, seed, steps
        self._entries: list[_Entry] = []
        self.report = self._keep(demonstrations, tokenizer)
        self._first_mode = self._alternating_questions()
        self._check()

    def _keep(self, demonstrations: Sequence[Demonstration], tokenizer: ChatTokenizer) -> MixtureReport:
        too_long = over_limit = 0
        limit = self._config.no_think_max_tokens
        for demonstration in demonstrations:
            sample = encode(tokenizer, demonstration)
            if len(sample) > self._config.row_length:
                too_long += 1
            elif demonstration.mode is Mode.NO_THINK and 0 < limit < len(sample.completion_ids) - 1:
                over_limit += 1
            else:
                problem = demonstration.problem
                question = problem.key or question_key(problem.messages)
                ids = array("I", sample.prompt_ids), array("I", sample.completion_ids)
                self._entries.append(_Entry(*ids, demonstration.mode, question))
        think = sum(entry.mode is Mode.THINK for entry in self._entries)
        return MixtureReport(think, len(self._entries) - think, too_long, over_limit)

    def _alternating_questions(self) -> dict[str, Mode]:
        """Return the mode in even passes of each question that has both; half the questions begin with think."""
        if self._config.pairing == "paired":
            return {}
        with_think = dict.fromkeys(entry.question for entry in self._entries if entry.mode is Mode.THINK)
        with_no_think = {entry.question for entry in self._entries if entry.mode is Mode.NO_THINK}
        both = [question for question in with_think if question in with_no_think]
        random.Random(f"hft-pairs-{self._seed}").shuffle(both)
        return {question: (Mode.THINK, Mode.NO_THINK)[i % 2] for i, question in enumerate(both)}

    def _check(self) -> None:
        config, report = self._config, self.report
        if not self._entries:
            raise DataError(f"no sample is left to train on: {report}")
        if not (report.think and report.no_think):
            # A model that saw one mode would fail in the other, and every later comparison of the two with it.
            raise DataError(f"HFT learns both modes, and only one has samples: {report}")
        if config.think_share and not all(all(self._sides(number)) for number in range(2)):
            raise DataError(
                "hft.pairing = 'unpaired': too few questions, some passes would have one mode; use 'paired'"
            )

    def _sides(self, number: int) -> tuple[list[int], list[int]]:
        """Return the think and the no-think samples that pass `number` may use."""
        sides: tuple[list[int], list[int]] = ([], [])
        for index, entry in enumerate(self._entries):
            first = self._first_mode.get(entry.question)
            if first is None or (entry.mode is first) == (number % 2 == 0):
                sides[entry.mode is Mode.NO_THINK].append(index)
        return sides

    def pass_order(self, number: int) -> list[int]:
        """Return the samples of pass `number` (indices into the kept ones), each at most once.

        With `think_share` 0 they are all the samples that `pairing` leaves, shuffled. Otherwise the mode with too
        many is drawn from without replacement, and the modes are interleaved evenly.
        """
        think, no_think = self._sides(number)
        rng = random.Random(f"hft-pass-{self._seed}-{number}")
        share = self._config.think_share
        if not share:
            order = sorted(think + no_think)
            rng.shuffle(order)
            return order
        rng.shuffle(think)
        rng.shuffle(no_think)
        wanted_think = max(1, round(len(no_think) * share / (1 - share)))
        wanted_no_think = max(1, round(len(think) * (1 - share) / share))
        return _interleave(think[:wanted_think], no_think[:wanted_no_think])

    def _think_order(self, number: int) -> list[int]:
        order = [index for index, entry in enumerate(self._entries) if entry.mode is Mode.THINK]
        random.Random(f"hft-think-{self._seed}-{number}").shuffle(order)
        return order

    def _order(self, number: int, think_only: bool) -> list[int]:
        return self._think_order(number) if think_only else self.pass_order(number)

    def pass_rows(self, number: int, think_only: bool = False) -> Iterator[list[int]]:
        """Yield the packed rows of pass `number`, rows of one pool in random order."""
        order = self._order(number, think_only)
        start = 0
        for pool in itertools.count():
            end, tokens = start, 0
            while end < len(order) and tokens < POOL_ROWS * self._config.row_length:
                tokens += len(self._entries[order[end]])
                end += 1
            if start == end:
                return
            chosen, start = order[start:end], end
            rows = pack([len(self._entries[index]) for index in chosen], self._config.row_length)
            random.Random(f"hft-rows-{self._seed}-{number}-{pool}-{think_only}").shuffle(rows)
            yield from ([chosen[place] for place in row] for row in rows)

    def _packed(self, think_only: bool) -> Iterator[list[list[int]]]:
        rows = itertools.chain.from_iterable(self.pass_rows(number, think_only) for number in itertools.count())
        while True:
            yield list(itertools.islice(rows, self._config.rows))

    def _bucketed(self, think_only: bool) -> Iterator[list[list[int]]]:
        """Yield batches of single samples; the last pool of a pass is filled up from the next one."""
        rows = self._config.rows
        rng_name = f"hft-buckets-{self._seed}-{think_only}"
        stream = itertools.chain.from_iterable(self._order(number, think_only) for number in itertools.count())
        due = 0  # samples of the passes up to this one that no pool has taken yet; below 0, taken from later ones
        for number in itertools.count():
            due += len(self._order(number, think_only))
            while due > 0:
                size = min(POOL_BATCHES, math.ceil(due / rows)) * rows
                pool = list(itertools.islice(stream, size))
                pool.sort(key=lambda index: len(self._entries[index]))
                batches = [[[index] for index in pool[i : i + rows]] for i in range(0, size, rows)]
                random.Random(f"{rng_name}-{number}-{due}").shuffle(batches)
                yield from batches
                due -= size

    def _layouts(self, think_only: bool) -> Iterator[list[list[int]]]:
        return self._packed(think_only) if self._config.batching == "pack" else self._bucketed(think_only)

    def steps_per_pass(self) -> int:
        """Return the number of micro-batches that hold all samples of the first pass."""
        packed = self._config.batching == "pack"
        rows = sum(1 for _ in self.pass_rows(0)) if packed else len(self.pass_order(0))
        return math.ceil(rows / self._config.rows)

    def _think_first_steps(self) -> int:
        config = self._config
        if not config.think_first_share:
            return 0
        if self._steps:
            steps = self._steps
        elif config.epochs:
            steps = round(config.epochs * self.steps_per_pass())
        else:
            steps = config.steps * config.accumulation
        return round(config.think_first_share * steps)

    def batches(self, start: int = 0, step: int = 1) -> Iterator[Batch]:
        """Yield micro-batch `start`, `start` + `step`, ... without end, each of `config.rows` rows.

        The batches before and between are laid out to find the place, and not built: about a second per hundred
        thousand samples.
        """
        first = self._think_first_steps()
        layouts = itertools.chain(itertools.islice(self._layouts(True), first), self._layouts(False))
        for layout in itertools.islice(layouts, start, None, step):
            yield self._collate(layout)

    def _collate(self, layout: list[list[int]]) -> Batch:
        samples = [self._entries[index].sample for row in layout for index in row]
        places = itertools.count()
        rows = [[next(places) for _ in row] for row in layout]
        length = self._config.row_length
        if self._config.batching == "bucket":
            length = max(map(len, samples))
        return collate(samples, rows, length)


def _interleave(think: Sequence[int], no_think: Sequence[int]) -> list[int]:
    """Merge the two so that every stretch has about the share of the whole."""
    placed = [
        ((place + 0.5) / len(side), number, index)
        for number, side in enumerate((think, no_think))
        for place, index in enumerate(side)
    ]
    return [index for _, _, index in sorted(placed)]
