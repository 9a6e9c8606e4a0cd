"""Evaluation of a checkpoint on the task suite: raw rows of the test and validation splits, and of contexts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lhrm_train.config import ConfigError, EvalConfig, RewardConfig
from lhrm_train.evaluate import context_problems, sample_contexts
from lhrm_train.evaluate_any import measure_rows
from lhrm_train.grading import Grader
from lhrm_train.measure import ROWS, SETTINGS, Measurement, measure
from lhrm_train.problems import Problem
from lhrm_train.rows import context_log, write_rows
from lhrm_train.samplers import LocalSampler
from lhrm_train.suite import mix

# The finished rows, packed; each lies beside a folder of its name with the log it was made from.
VALIDATION, TEST, CONTEXTS, HFT_TEST = (f"{name}.jsonl.gz" for name in ("validation", "test", "contexts", "hft_test"))
REWARD = RewardConfig()  # the suite knows its answers to the letter


def suite_problems(split: str, prompts: int, seed: int) -> list[Problem]:
    """Return the first `prompts` problems of the suite's `split`."""
    return [item.problem for item in mix.fixed_items(prompts, seed, split)]


def evaluate_suite(sampler: LocalSampler, out: Path, config: EvalConfig) -> None:
    """Write the validation, test and context rows of a checkpoint into `out`; what is there is not made again.

    The validation rows choose the shipped seed and calibrate savings. Raises ConfigError when `out` holds rows of
    another model or other settings, or of nobody knows what.
    """
    validation = suite_problems("validation", config.prompts // 2, config.seed)
    _evaluate(sampler, out / VALIDATION, validation, config, config.validation_samples)
    _evaluate(sampler, out / TEST, suite_problems(config.split, config.prompts, config.seed), config, config.samples)
    _evaluate_contexts(sampler, out / CONTEXTS, config)


def evaluate_before_hgpo(sampler: LocalSampler, out: Path, config: EvalConfig) -> None:
    """Write the test rows of the checkpoint that HGPO started from. Raises what `evaluate_suite` raises."""
    problems = suite_problems(config.split, config.prompts, config.seed)
    _evaluate(sampler, out / HFT_TEST, problems, config, config.hft_samples)


def _evaluate(
    sampler: LocalSampler, packed: Path, problems: Sequence[Problem], config: EvalConfig, samples: int
) -> None:
    measured = Measurement(sampler, problems, replace(config, samples=samples), REWARD)
    write_rows(packed, measure_rows(measured, _checked_folder(packed)))


def _evaluate_contexts(sampler: LocalSampler, packed: Path, config: EvalConfig) -> None:
    samples, grader = max(1, config.samples // 4), Grader(REWARD, sampler.tokenizer)
    rows = measure(
        context_log(_checked_folder(packed) / ROWS),
        Measurement(sampler, context_problems(config), replace(config, samples=samples), REWARD),
        lambda todo, seed: sample_contexts(sampler, grader, todo, samples, seed),
    )
    write_rows(packed, rows)


def folder_of(packed: Path) -> Path:
    """Return where the log and the settings of `packed` lie."""
    return packed.with_name(packed.name.removesuffix(".jsonl.gz"))


def _checked_folder(packed: Path) -> Path:
    """Return the folder of `packed`. Raises ConfigError when there are rows without their settings."""
    folder = folder_of(packed)
    if packed.is_file() and not (folder / SETTINGS).is_file():
        raise ConfigError(f"{packed}: nothing tells which model made these rows: use another directory")
    return folder
