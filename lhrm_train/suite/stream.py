"""Endless, seeded streams of the task suite: packed demonstrations for HFT, problems for HGPO."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence

from lhrm_train.config import ConfigError, HFTConfig
from lhrm_train.data import Batch, Group, Sample, collate_groups, nest_prompts, pack
from lhrm_train.format import ChatTokenizer, Mode, encode_answer, encode_chat
from lhrm_train.problems import Problem
from lhrm_train.suite import mix
from lhrm_train.suite.verify import verify

POOL_BATCHES = 4
# Short rows cost less attention; the bare questions of the early steps need no longer ones.
EARLY_ROW_LENGTH = 224
# Questions in a row that do not fit a row; where one in a hundred fits, the chance of so many is 10^-44.
MOST_MISSES = 10_000


def suite_sample(tokenizer: ChatTokenizer, item: mix.Item, mode: Mode) -> Sample:
    """Encode one verified item in `mode`."""
    verify(item)
    return Sample(encode_chat(tokenizer, item.messages, None), encode_answer(tokenizer, mode, item.trace, item.answer))


def answered_turns(turns: Sequence[Sample], most: int, rng: random.Random) -> Group | None:
    """Lay out one conversation: its last turn is answered, and others in random order until one does not fit.

    None where not even the last one fits `most` tokens.
    """
    room = most - len(turns[-1])
    if room < 0:
        return None
    chosen = [len(turns) - 1]
    for number in rng.sample(range(len(turns) - 1), len(turns) - 1):
        room -= len(turns[number].completion_ids)
        if room < 0:
            break
        chosen.append(number)
    return nest_prompts([turns[number] for number in sorted(chosen)])


class SuiteDemonstrations:
    """Micro-batches of a run of `processes`, drawn from the curriculum; no question is drawn twice on purpose."""

    def __init__(self, tokenizer: ChatTokenizer, config: HFTConfig, seed: int, processes: int = 1) -> None:
        self._tokenizer, self._config, self._seed = tokenizer, config, seed
        self._micro_batches = config.steps * config.accumulation * processes

    def _shape(self, progress: float) -> tuple[int, int]:
        """Return the rows of a micro-batch and their length at `progress`: the same number of tokens, about."""
        rows, length = self._config.rows, self._config.row_length
        if progress >= mix.EARLY_SHARE or length <= EARLY_ROW_LENGTH:
            return rows, length
        return rows * length // EARLY_ROW_LENGTH, EARLY_ROW_LENGTH

    def pool_rows(self, pool: int) -> tuple[list[Group], list[list[int]], int]:
        """Draw and pack pool number `pool`: (conversations, rows of their indices, tokens of a row).

        Raises ConfigError when no question fits a row.
        """
        rng = random.Random(f"hft-{self._seed}-{pool}")
        progress = pool * POOL_BATCHES / self._micro_batches
        count, length = self._shape(progress)
        groups: list[Group] = []
        total = misses = 0
        while total < POOL_BATCHES * count * length:
            turns = mix.sample_conversation(rng, mix.curriculum_context_share(progress))
            group = answered_turns([self._sample(rng, item) for item in turns], length, rng)
            if group is not None:
                groups.append(group)
                total += len(group)
                misses = 0
            elif (misses := misses + 1) == MOST_MISSES:
                raise ConfigError(f"hft.row_length = {length}: no question of the suite is that short")
        rows = pack([len(group) for group in groups], length)
        rng.shuffle(rows)
        return groups, rows[: POOL_BATCHES * count], length

    def _sample(self, rng: random.Random, item: mix.Item) -> Sample:
        think = rng.random() < self._config.think_share or item.think_only
        return suite_sample(self._tokenizer, item, Mode.THINK if think else Mode.NO_THINK)

    def batches(self, start: int, step: int = 1) -> Iterator[Batch]:
        """Yield micro-batch `start`, `start` + `step`, ... without end; pools without any of them are not drawn."""
        numbers = itertools.count(start, step)
        for pool, wanted in itertools.groupby(numbers, lambda number: number // POOL_BATCHES):
            groups, rows, length = self.pool_rows(pool)
            rows_each = len(rows) // POOL_BATCHES
            for number in wanted:
                first = number % POOL_BATCHES * rows_each
                yield collate_groups(groups, rows[first : first + rows_each], length)


class SuiteProblems:
    """Problems drawn from the suite's workload, of those that `fits` lets through."""

    def __init__(self, seed: int, fits: Callable[[Problem], bool] = lambda problem: True) -> None:
        self._seed, self._fits = seed, fits

    def draw(self, step: int, count: int) -> list[Problem]:
        """Return the problems of `step`. Raises ConfigError when none fits."""
        rng = random.Random(f"hgpo-{self._seed}-{step}")
        out: list[Problem] = []
        misses = 0
        while len(out) < count:
            problem = mix.sample_item(rng, "train").problem
            if self._fits(problem):
                out.append(problem)
                misses = 0
            elif (misses := misses + 1) == MOST_MISSES:
                raise ConfigError("hgpo.row_length leaves no room for max_new_tokens behind any question of the suite")
        return out
