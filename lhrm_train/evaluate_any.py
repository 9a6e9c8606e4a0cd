"""Evaluation of any sampler on any problems, and its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lhrm_train.config import EvalConfig, RewardConfig
from lhrm_train.evaluate import sample_rows
from lhrm_train.evaluation_report import report_from_rows
from lhrm_train.grading import Grader
from lhrm_train.measure import ROWS, Measurement, measure
from lhrm_train.problems import Problem
from lhrm_train.rows import Row, row_log
from lhrm_train.samplers import Sampler


def measure_rows(what: Measurement, out: Path) -> list[Row]:
    """Sample every problem in every mode, keep the rows in `out` and return them.

    Raises ConfigError when a scorer cannot be had, and what `measure` and the sampler raise.
    """
    grader = Grader(what.reward, what.sampler.tokenizer)
    grader.check(what.problems)
    samples = what.config.samples
    return measure(row_log(out / ROWS), what, lambda todo, seed: sample_rows(what.sampler, grader, todo, samples, seed))


def evaluate_any(
    sampler: Sampler,
    problems: Sequence[Problem],
    config: EvalConfig,
    out: Path,
    reward: RewardConfig | None = None,
    data: Mapping[str, Any] | None = None,
) -> str:
    """Measure the rows in `out` and return the report with the key line last; `data` tells where `problems` are from.

    Raises what `measure_rows` raises.
    """
    measure_rows(Measurement(sampler, problems, config, reward or RewardConfig(), data or {}), out)
    return report_from_rows(out)
