"""Endless, seeded streams of the task suite: packed demonstrations for HFT, problems for HGPO."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator

from lhrm_train.config import ConfigError, HFTConfig
from lhrm_train.data import Batch, Sample, collate, pack
from lhrm_train.format import ChatTokenizer, Mode, encode_answer, encode_chat
from lhrm_train.problems import Problem
from lhrm_train.suite import mix
from lhrm_train.suite.verify import verify

POOL_BATCHES = 4
# Questions in a row that do not fit a row; where one in a hundred fits, the chance of so many is 10^-44.
MOST_MISSES = 10_000


def suite_sample(tokenizer: ChatTokenizer, item: mix.Item, mode: Mode) -> Sample:
    """Encode one verified item in `mode`."""
    verify(item)
    return Sample(encode_chat(tokenizer, item.messages, None), encode_answer(tokenizer, mode, item.trace, item.answer))


class SuiteDemonstrations:
    """Micro-batches drawn from the suite's curriculum; no question is drawn twice on purpose."""

    def __init__(self, tokenizer: ChatTokenizer, config: HFTConfig, seed: int) -> None:
        self._tokenizer, self._config, self._seed = tokenizer, config, seed

    def pool_rows(self, pool: int) -> tuple[list[Sample], list[list[int]]]:
        """Draw and pack pool number `pool`: (samples, rows of sample indices).

        Raises ConfigError when no question fits a row.
        """
        config = self._config
        rng = random.Random(f"hft-{self._seed}-{pool}")
        share = mix.curriculum_context_share(pool * POOL_BATCHES / (config.steps * config.accumulation))
        samples: list[Sample] = []
        wanted = POOL_BATCHES * config.rows * config.row_length
        total = misses = 0
        while total < wanted:
            mode = Mode.THINK if rng.random() < config.think_share else Mode.NO_THINK
            sample = suite_sample(self._tokenizer, mix.sample_item(rng, "train", mix.CURRICULUM, share), mode)
            if len(sample) <= config.row_length:
                samples.append(sample)
                total += len(sample)
                misses = 0
            elif (misses := misses + 1) == MOST_MISSES:
                raise ConfigError(f"hft.row_length = {config.row_length}: no question of the suite is that short")
        rows = pack([len(sample) for sample in samples], config.row_length)
        rng.shuffle(rows)
        return samples, rows[: POOL_BATCHES * config.rows]

    def batches(self, start: int, step: int = 1) -> Iterator[Batch]:
        """Yield micro-batch `start`, `start` + `step`, ... without end; pools without any of them are not drawn."""
        rows_each = self._config.rows
        numbers = itertools.count(start, step)
        for pool, wanted in itertools.groupby(numbers, lambda number: number // POOL_BATCHES):
            samples, rows = self.pool_rows(pool)
            for number in wanted:
                first = number % POOL_BATCHES * rows_each
                yield collate(samples, rows[first : first + rows_each], self._config.row_length)


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
