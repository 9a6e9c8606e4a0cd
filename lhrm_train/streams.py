"""What a run trains on, by its settings: the suite's endless streams, or files read, cleaned and shuffled."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from lhrm_train.config import ConfigError, DataConfig, HFTConfig, HGPOConfig, RewardConfig
from lhrm_train.fit import refuse_finite_settings, refuse_unknown_kinds
from lhrm_train.format import ChatTokenizer, encode_chat
from lhrm_train.hygiene import CleaningReport, clean
from lhrm_train.mixture import Mixture, MixtureReport
from lhrm_train.problems import Problem
from lhrm_train.rewards import Judge
from lhrm_train.sources import read_demonstrations, read_problems
from lhrm_train.suite.stream import SuiteDemonstrations, SuiteProblems
from lhrm_train.train_hft import BatchStream
from lhrm_train.train_hgpo import ProblemStream


@dataclass(frozen=True)
class DemonstrationData:
    """HFT's stream, the settings with `epochs` turned into steps, and what was left out on the way."""

    stream: BatchStream
    config: HFTConfig
    cleaning: CleaningReport | None = None
    mixture: MixtureReport | None = None


@dataclass(frozen=True)
class ProblemData:
    """HGPO's stream and what was left out on the way; `too_long` counts prompts without room for an answer.

    `problems` are all that a finite stream draws from; empty where the stream is endless and draws only what fits.
    """

    stream: ProblemStream
    problems: Sequence[Problem] = ()
    cleaning: CleaningReport | None = None
    too_long: int = 0


class ListedProblems:
    """A finite list, shuffled anew on every pass."""

    def __init__(self, problems: Sequence[Problem], seed: int) -> None:
        if not problems:
            raise ConfigError("prompts: no problem is left to train on")
        self._problems, self._seed = problems, seed

    def draw(self, step: int, count: int) -> list[Problem]:
        """Return the problems of `step`; a step may run over from one pass into the next."""
        size = len(self._problems)
        out: list[Problem] = []
        for place in range(step * count, (step + 1) * count):
            out.append(self._problems[self._order(place // size)[place % size]])
        return out

    def _order(self, number: int) -> list[int]:
        order = list(range(len(self._problems)))
        random.Random(f"hgpo-{self._seed}-{number}").shuffle(order)
        return order


def demonstration_data(
    tokenizer: ChatTokenizer, data: DataConfig, config: HFTConfig, seed: int, processes: int = 1
) -> DemonstrationData:
    """Return what HFT learns from. Raises ConfigError or DataError naming the setting or the file and line."""
    if data.source == "suite":
        refuse_finite_settings(config)
        return DemonstrationData(SuiteDemonstrations(tokenizer, config, seed, processes), config)
    kept, cleaning = clean(read_demonstrations(data), data)
    per_update = config.accumulation * processes
    mixture = Mixture(kept, tokenizer, config, seed, steps=0 if config.epochs else config.steps * per_update)
    if config.epochs:
        updates = round(config.epochs * mixture.steps_per_pass() / per_update)
        config = replace(config, steps=max(1, updates))
    return DemonstrationData(mixture, config, cleaning, mixture.report)


def problem_data(tokenizer: ChatTokenizer, data: DataConfig, config: HGPOConfig, seed: int) -> ProblemData:
    """Return what HGPO answers. Raises ConfigError or DataError naming the setting or the file and line."""
    room = config.row_length - config.max_new_tokens - 1

    def fits(problem: Problem) -> bool:
        return len(encode_chat(tokenizer, problem.messages, None)) <= room

    if data.source == "suite":
        return ProblemData(SuiteProblems(seed, fits))
    kept, cleaning = clean(read_problems(data), data)
    refuse_unknown_kinds(config, {problem.kind for problem in kept})
    fitting = [problem for problem in kept if fits(problem)]
    return ProblemData(ListedProblems(fitting, seed), fitting, cleaning, len(kept) - len(fitting))


def check_problems(data: ProblemData, tokenizer: ChatTokenizer, reward: RewardConfig) -> None:
    """Look up every scorer that the problems name. Raises ConfigError."""
    Judge(tokenizer, reward).check(data.problems or data.stream.draw(0, 1))
