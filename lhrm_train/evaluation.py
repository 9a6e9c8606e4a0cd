"""What ``lhrm-train eval`` and the last stage of a run measure: which model, on which questions, written where."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lhrm_train.calibration import MIN_PROMPTS, calibrate
from lhrm_train.config import ConfigError, DataConfig, RunConfig
from lhrm_train.evaluate_any import evaluate_any, measure_rows
from lhrm_train.evaluate_suite import TEST, VALIDATION, evaluate_suite, suite_problems
from lhrm_train.evaluation_report import data_text
from lhrm_train.format import Manifest, SavingsCalibration
from lhrm_train.hygiene import CleaningReport, clean
from lhrm_train.measure import ROWS, SETTINGS, Measurement
from lhrm_train.problems import Problem
from lhrm_train.report import key_figures
from lhrm_train.rows import Row, read_rows, row_log
from lhrm_train.samplers import LocalSampler, Sampler
from lhrm_train.server_sampler import ServerSampler, find_endpoint
from lhrm_train.sources import read_problems
from lhrm_train.suite_report import write_report

SUITE, GYM_PREFIX = "suite", "gym:"
CALIBRATION_SHARE = 0.25


@dataclass(frozen=True)
class Questions:
    """What is asked, and how many were left out on the way: by hygiene, and beyond the first `eval.prompts`."""

    source: str
    problems: Sequence[Problem]
    cleaning: CleaningReport | None = None
    not_asked: int = 0

    def data(self, held_out: int = 0) -> dict[str, Any]:
        """Return the counts for settings and report; `held_out` of the problems go to the calibration."""
        return {
            "source": self.source,
            "cleaning": asdict(self.cleaning) if self.cleaning else None,
            "not_asked": self.not_asked,
            "asked": len(self.problems) - held_out,
            "held_out": held_out,
        }


def questions_of(data: DataConfig, config: RunConfig) -> Questions:
    """Return the first `eval.prompts` questions after hygiene. Raises DataError where they cannot be read."""
    if data.source == SUITE:
        return Questions(SUITE, suite_problems(config.eval.split, config.eval.prompts, config.eval.seed))
    kept, cleaning = clean(read_problems(data), data)
    asked = kept[: config.eval.prompts]
    return Questions(", ".join(data.files), asked, cleaning, len(kept) - len(asked))


def data_named(name: str, config: RunConfig) -> DataConfig:
    """Return the data of the command line: ``suite``, ``gym:NAME``, or a JSON lines file."""
    if name == SUITE:
        return DataConfig()
    if name.startswith(GYM_PREFIX):
        task = name.removeprefix(GYM_PREFIX)
        return DataConfig(source="gym", files=(task,), limit=config.eval.prompts, seed=config.eval.seed)
    return replace(config.test, source="jsonl", files=(name,))


def run_evaluation(
    model: Path | None,
    url: str | None,
    data: str,
    out: Path,
    config: RunConfig,
    api_key: str | None = None,
    *,
    calibrating: bool = False,
) -> str:
    """Evaluate a checkpoint or a server and return the report, its key line last; an unfinished one goes on.

    A checkpoint on the suite is also asked in conversation contexts and on the validation split. `calibrating`
    writes the savings calibration into the checkpoint's manifest: from the validation split of the suite, otherwise
    from a quarter of the questions, chosen by their key, which is then not in the report.
    """
    if calibrating and model is None:
        raise ConfigError("--calibrate writes into a checkpoint's lhrm.json, so it needs --model")
    packed = model is not None and data == SUITE
    _refuse_other_kind(out, packed=packed)
    if model is None:
        sampler: Sampler = ServerSampler(find_endpoint(url or "", api_key=api_key), config.eval, api_key)
        return evaluate_questions(sampler, questions_of(data_named(data, config), config), out, config)
    local = LocalSampler.load(model, config.eval)
    if packed:
        evaluate_suite(local, out, config.eval)
        held_out = read_rows(out / VALIDATION) if calibrating else []
        report = write_report(out, config.eval)
    else:
        questions = questions_of(data_named(data, config), config)
        held_out = _measure_held_out(local, questions, out, config) if calibrating else []
        report = evaluate_questions(local, questions, out, config, holding_out=calibrating)
    if calibrating:
        write_calibration(model, held_out)
    return report


def _refuse_other_kind(out: Path, *, packed: bool) -> None:
    other = out / SETTINGS if packed else out / TEST
    if other.is_file():
        raise ConfigError(f"{other} is of an evaluation on other data: use another directory")


def evaluate_questions(
    sampler: Sampler, questions: Questions, out: Path, config: RunConfig, *, holding_out: bool = False
) -> str:
    """Evaluate on the questions, or on those that are not held out, and return the report, its key line last.

    Raises ConfigError when none is left, and what `evaluate_any` raises.
    """
    asked = [one for one in questions.problems if not (holding_out and _for_calibration(one))]
    data = questions.data(len(questions.problems) - len(asked))
    print(data_text(data), file=sys.stderr)
    if not asked:
        raise ConfigError(f"{questions.source}: no question is left to ask")
    return evaluate_any(sampler, asked, config.eval, out, config.reward, data)


def file_figures(rows: Path, config: RunConfig) -> dict[str, object]:
    """Return what the manifest quotes of an evaluation on files; figures that were not measured are absent."""
    figures = key_figures(row_log(rows / ROWS).read(), config.eval.margin)
    measured = {name: value for name, value in figures.items() if not math.isnan(value)}
    return {"files": list(config.test.files), "samples_per_mode": config.eval.samples, **measured}


def _for_calibration(problem: Problem) -> bool:
    bucket = hashlib.blake2b(f"calibration {problem.key}".encode(), digest_size=4).digest()
    return int.from_bytes(bucket, "big") / 2**32 < CALIBRATION_SHARE


def _measure_held_out(sampler: Sampler, questions: Questions, out: Path, config: RunConfig) -> list[Row]:
    held_out = [problem for problem in questions.problems if _for_calibration(problem)]
    if not held_out:
        return []
    return measure_rows(Measurement(sampler, held_out, config.eval, config.reward), out / "calibration")


def write_calibration(checkpoint: Path, rows: Sequence[Row]) -> SavingsCalibration | None:
    """Write the savings calibration from `rows` into a checkpoint's manifest and return it.

    None, and an unchanged manifest, where the rows are too few for one; stderr says which it was.
    """
    calibration = calibrate(rows)
    if calibration is None:
        print(
            f"no calibration: {len(rows)} questions held out, and no range of P(think) and length has {MIN_PROMPTS} "
            f"that the model answers directly; lhrm.json stays as it is",
            file=sys.stderr,
        )
        return None
    replace(Manifest.load(checkpoint), savings_calibration=calibration).save(checkpoint)
    print(f"calibration of {calibration.prompts} prompts written into {checkpoint}", file=sys.stderr)
    return calibration
