"""What ``lhrm-train eval`` and the last stage of a run measure: which model, on which questions, written where."""

from __future__ import annotations

import hashlib
import math
from dataclasses import replace
from pathlib import Path

from lhrm_train.calibration import calibrate
from lhrm_train.config import DataConfig, RunConfig
from lhrm_train.evaluate_any import evaluate_any
from lhrm_train.evaluation_report import ROWS
from lhrm_train.format import Manifest
from lhrm_train.hygiene import clean
from lhrm_train.problems import Problem
from lhrm_train.report import key_figures
from lhrm_train.rows import RowLog
from lhrm_train.samplers import LocalSampler, Sampler
from lhrm_train.server_sampler import ServerSampler, find_endpoint
from lhrm_train.sources import read_problems
from lhrm_train.suite import mix
from lhrm_train.suite_report import evaluate_run, write_report

GYM_PREFIX = "gym:"
CALIBRATION_SHARE = 0.25


def problems_of(data: str, config: RunConfig) -> list[Problem]:
    """Return the questions named on the command line: ``suite``, ``gym:NAME``, or a JSON lines file."""
    limit = config.eval.prompts
    if data == "suite":
        return [item.problem for item in mix.fixed_items(limit, config.eval.seed, config.eval.split)]
    if data.startswith(GYM_PREFIX):
        return read_problems(DataConfig("gym", (data.removeprefix(GYM_PREFIX),), limit=limit, seed=config.eval.seed))
    kept, _ = clean(read_problems(replace(config.test, source="jsonl", files=(data,))), config.test)
    return kept[:limit]


def run_evaluation(
    model: Path | None, url: str | None, data: str, out: Path, config: RunConfig, api_key: str | None = None
) -> str:
    """Evaluate a checkpoint or a server and return the report, its key line last; an unfinished one goes on.

    A checkpoint on the suite is also asked in conversation contexts and on the validation split.
    """
    if model is not None and data == "suite":
        evaluate_run(model, out, config.eval)
        return write_report(out, config.eval)
    sampler: Sampler
    if model is not None:
        sampler = LocalSampler.load(model, config.eval)
    else:
        sampler = ServerSampler(find_endpoint(url or "", api_key=api_key), config.eval, api_key)
    return evaluate_any(sampler, problems_of(data, config), config.eval, out, config.reward)


def _for_calibration(problem: Problem) -> bool:
    bucket = hashlib.blake2b(f"calibration {problem.key}".encode(), digest_size=4).digest()
    return int.from_bytes(bucket, "big") / 2**32 < CALIBRATION_SHARE


def evaluate_files(checkpoint: Path, out: Path, config: RunConfig) -> str:
    """Evaluate a run's checkpoint on `config.test`, and write figures and savings calibration into its manifest.

    A quarter of the questions, chosen by their key, is held out for the calibration and is not in the report.
    """
    kept, _ = clean(read_problems(config.test), config.test)
    questions = kept[: config.eval.prompts]
    held_out = [problem for problem in questions if _for_calibration(problem)]
    asked = [problem for problem in questions if not _for_calibration(problem)]
    sampler = LocalSampler.load(checkpoint, config.eval)
    if held_out:
        evaluate_any(sampler, held_out, config.eval, out / "calibration", config.reward)
    report = evaluate_any(sampler, asked, config.eval, out, config.reward)
    _finish_manifest(checkpoint, out, config)
    return report


def _finish_manifest(checkpoint: Path, out: Path, config: RunConfig) -> None:
    figures = key_figures(RowLog(out / ROWS).read(), config.eval.margin)
    measured = {name: value for name, value in figures.items() if not math.isnan(value)}
    evaluation = {"files": list(config.test.files), "samples_per_mode": config.eval.samples, **measured}
    calibration = calibrate(RowLog(out / "calibration" / ROWS).read())
    manifest = Manifest.load(checkpoint)
    replace(manifest, evaluation=evaluation, savings_calibration=calibration).save(checkpoint)
