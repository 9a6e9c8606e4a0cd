"""Endless, seeded streams of the task suite: packed demonstrations for HFT, problems for HGPO."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from lhrm_train.config import HFTConfig
from lhrm_train.data import Batch, Sample, collate, pack
from lhrm_train.format import ChatTokenizer, Mode, encode_answer, encode_chat
from lhrm_train.problems import Problem
from lhrm_train.suite import mix
from lhrm_train.suite.verify import verify

POOL_BATCHES = 4


def suite_sample(tokenizer: ChatTokenizer, item: mix.Item, mode: Mode) -> Sample:
    """Encode one verified item in `mode`."""
    verify(item)
    return Sample(encode_chat(tokenizer, item.messages, None), encode_answer(tokenizer, mode, item.trace, item.answer))


class SuiteDemonstrations:
    """Micro-batches drawn from the suite's curriculum; no question is drawn twice on purpose."""

    def __init__(self, tokenizer: ChatTokenizer, config: HFTConfig, seed: int) -> None:
        self._tokenizer, self._config, self._seed = tokenizer, config, seed

    def pool_rows(self, pool: int) -> tuple[list[Sample], list[list[int]]]:
        """Draw and pack pool number `pool`: (samples, rows of sample indices)."""
        config = self._config
        rng = random.Random(f"hft-{self._seed}-{pool}")
        share = mix.curriculum_context_share(pool * POOL_BATCHES / (config.steps * config.accumulation))
        samples: list[Sample] = []
        wanted = POOL_BATCHES * config.rows * config.row_length
        total = 0
        while total < wanted:
            mode = Mode.THINK if rng.random() < config.think_share else Mode.NO_THINK
            sample = suite_sample(self._tokenizer, mix.sample_item(rng, "train", mix.CURRICULUM, share), mode)
            if len(sample) <= config.row_length:
                samples.append(sample)
                total += len(sample)
        rows = pack([len(sample) for sample in samples], config.row_length)
        rng.shuffle(rows)
        return samples, rows[: POOL_BATCHES * config.rows]

    def batches(self, start: int) -> Iterator[Batch]:
        """Yield micro-batch `start`, `start` + 1, ... without end."""
        rows_each = self._config.rows
        for pool in itertools.count(start // POOL_BATCHES):
            samples, rows = self.pool_rows(pool)
            for part in range(POOL_BATCHES):
                if pool * POOL_BATCHES + part >= start:
                    chosen = rows[part * rows_each : (part + 1) * rows_each]
                    yield collate(samples, chosen, self._config.row_length)


class SuiteProblems:
    """Problems drawn from the suite's workload."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def draw(self, step: int, count: int) -> list[Problem]:
        """Return the problems of `step`."""
        rng = random.Random(f"hgpo-{self._seed}-{step}")
        return [mix.sample_item(rng, "train").problem for _ in range(count)]
