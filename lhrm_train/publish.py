"""Choose the shipped checkpoint among finished runs on validation and write it with its model card."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import safe_open

from lhrm_train.atomic import replace_directory, write_json, write_text
from lhrm_train.card import model_card
from lhrm_train.checkpoint import is_checkpoint
from lhrm_train.config import ConfigError, EvalConfig, RunConfig
from lhrm_train.evaluate_suite import CONTEXTS, HFT_TEST, TEST, VALIDATION
from lhrm_train.evaluation_report import DIFFICULTY, REPORT, truncated_share
from lhrm_train.pipeline import RunFiles
from lhrm_train.report import key_line, shown, summarise
from lhrm_train.rows import read_rows
from lhrm_train.run_record import read_record
from lhrm_train.suite_report import figures_of, report_text, write_report

ROWS = (VALIDATION, TEST, CONTEXTS, HFT_TEST)


def validation_score(run: Path, margin: float) -> float:
    """Return the figure that chooses the shipped run: Hybrid Accuracy on validation."""
    return summarise(read_rows(RunFiles(run).rows / VALIDATION), margin).hacc


def parameter_count(checkpoint: Path) -> str:
    """Return the number of parameters in words, read from the weights file."""
    with safe_open(checkpoint / "model.safetensors", framework="pt") as weights:
        total = sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return f"{total / 1e6:.1f} million parameter"


def publish(runs: Sequence[Path], into: Path, config: RunConfig) -> str:
    """Copy the best run's checkpoint, rows and plots into `into`, with a card that lists every run.

    `into` is written complete or not at all; a checkpoint that is there is replaced. Raises ConfigError when `into`
    holds anything else, or a run is not finished or not on the suite.
    """
    _check_target(into, runs)
    for run in runs:
        _check_run(run)
    margin = config.eval.margin
    best = max(runs, key=lambda run: validation_score(run, margin))
    table = [_entry(run, best, config.eval) for run in runs]
    write_report(RunFiles(best).rows, config.eval)
    replace_directory(into, lambda fresh: _write(fresh, best, runs, table, config.eval))
    return key_line(figures_of(RunFiles(best).rows, config.eval))


def _check_target(into: Path, runs: Sequence[Path]) -> None:
    if into.exists() and not (into.is_dir() and (is_checkpoint(into) or not any(into.iterdir()))):
        raise ConfigError(f"--into {into} exists and is not a checkpoint, so it is not replaced")
    target = into.resolve()
    for run in (one.resolve() for one in runs):
        if run.is_relative_to(target) or target.is_relative_to(run):
            raise ConfigError(f"--into {into} and the run {run} lie in one another")


def _check_run(run: Path) -> None:
    files = RunFiles(run)
    read_record(run)
    needed = [*(files.rows / name for name in ROWS), run / "hgpo" / "curves.png"]
    missing = [path for path in needed if not path.is_file()]
    if missing or not is_checkpoint(files.hgpo):
        raise ConfigError(f"{run} is no finished run on the suite: {[*missing, files.hgpo][0]} not found")


def _seeds(run: Path) -> dict[str, int]:
    settings = read_record(run)["config"]
    return {name: settings[name] for name in ("hft_seed", "hgpo_seed")}


def _entry(run: Path, best: Path, config: EvalConfig) -> dict[str, Any]:
    return {
        **_seeds(run),
        "shipped": run == best,
        "seconds": read_record(run)["seconds"],
        "validation_hacc": round(validation_score(run, config.margin), 4),
        "figures": figures_of(RunFiles(run).rows, config),
    }


def _write(into: Path, best: Path, runs: Sequence[Path], table: Sequence[dict[str, Any]], config: EvalConfig) -> None:
    files, evaluation = RunFiles(best), into / "evaluation"
    shutil.copytree(files.hgpo, into, dirs_exist_ok=True)
    evaluation.mkdir()
    for name in (*ROWS, REPORT, DIFFICULTY):
        shutil.copyfile(files.rows / name, evaluation / name)
    shutil.copyfile(best / "hgpo" / "curves.png", evaluation / "hgpo.png")
    for run in runs:
        if run != best:
            name = "hft{hft_seed}-hgpo{hgpo_seed}".format(**_seeds(run))
            shutil.copyfile(RunFiles(run).rows / TEST, evaluation / f"test.{name}.jsonl.gz")
    write_json(evaluation / "runs.json", table)
    record = read_record(best)
    write_json(evaluation / "run.json", {name: record[name] for name in ("config", "environment", "seconds")})
    # Sampled as the run says, looked at as this call says.
    measured = record["config"]["eval"]
    sampled = {name: measured[name] for name in ("samples", "temperature", "max_new_tokens")}
    truncated = shown(truncated_share(read_rows(files.rows / TEST)), ".2%")
    report = report_text(files.rows, config)
    card = model_card(table, report, replace(config, **sampled), truncated, parameter_count(into))
    write_text(into / "README.md", card)
