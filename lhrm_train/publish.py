"""Choose the shipped checkpoint among finished runs on validation and write it with its model card."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import safe_open

from lhrm_train.atomic import replace_directory, write_json, write_text
from lhrm_train.card import model_card
from lhrm_train.checkpoint import is_checkpoint
from lhrm_train.config import ConfigError, EvalConfig, RunConfig
from lhrm_train.evaluate_suite import CONTEXTS, HFT_TEST, TEST, VALIDATION, folder_of
from lhrm_train.evaluation_report import truncated_share
from lhrm_train.measure import SETTINGS
from lhrm_train.pipeline import RunFiles
from lhrm_train.report import key_line, shown, summarise
from lhrm_train.rows import read_rows
from lhrm_train.run_record import read_record
from lhrm_train.suite_report import figures_of, report_text, write_report

ROWS = (VALIDATION, TEST, CONTEXTS, HFT_TEST)
# What must be equal for the figures of two runs to be compared.
ALIKE = ("prompts", "samples", "validation_samples", "temperature", "max_new_tokens", "seed", "split")
# Beside them: every run's figures, the settings of the shipped one, and the curves of its HGPO.
RUNS, RUN, CURVES = "runs.json", "run.json", "hgpo.png"


def validation_score(run: Path, margin: float) -> float:
    """Return the figure that chooses the shipped run: Hybrid Accuracy on validation."""
    return summarise(read_rows(RunFiles(run).rows / VALIDATION), margin).hacc


def parameter_count(checkpoint: Path) -> str:
    """Return the number of parameters in words, read from the weights file."""
    with safe_open(checkpoint / "model.safetensors", framework="pt") as weights:
        total = sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return f"{total / 1e6:.1f} million parameter"


@dataclass(frozen=True)
class _Listed:
    """A run as the card lists it, and where its test rows lie."""

    entry: dict[str, Any]
    test: Path


@dataclass(frozen=True)
class _Candidate(_Listed):
    """A run that can be shipped."""

    checkpoint: Path
    rows: Path
    curves: Path
    record: dict[str, Any]


def publish(runs: Sequence[Path], into: Path, config: RunConfig, *, adding: bool = False) -> str:
    """Copy the best run's checkpoint, rows and plots into `into`, with a card that lists every run.

    `adding` keeps the runs that `into` lists, and its checkpoint unless a new one is better. `into` is written complete
    or not at all; a checkpoint that is there is replaced. Raises ConfigError when `into` holds anything else, a run is
    not finished or not on the suite, or two runs have the same seeds.
    """
    _check_target(into, runs)
    for run in runs:
        _check_run(run)
    trained: list[_Listed] = _published(into) if adding else []
    trained += [_finished(run, config.eval) for run in runs]
    _check_seeds(trained)
    candidates = [one for one in trained if isinstance(one, _Candidate)]
    _check_measured_alike(candidates)
    best = max(candidates, key=lambda one: one.entry["validation_hacc"])
    replace_directory(into, lambda fresh: _write(fresh, best, trained, config.eval))
    return key_line(best.entry["figures"])


def _finished(run: Path, config: EvalConfig) -> _Candidate:
    files, record = RunFiles(run), read_record(run)
    entry = {
        **{name: record["config"][name] for name in ("hft_seed", "hgpo_seed")},
        "shipped": False,
        "seconds": record["seconds"],
        "validation_hacc": round(validation_score(run, config.margin), 4),
        "figures": figures_of(files.rows, config),
    }
    return _Candidate(entry, files.rows / TEST, files.hgpo, files.rows, run / "hgpo" / "curves.png", record)


def _published(into: Path) -> list[_Listed]:
    """Return the runs that `into` lists. Raises ConfigError where it does not tell how they were made."""
    evaluation = into / "evaluation"
    try:
        listed = json.loads((evaluation / RUNS).read_text(encoding="utf-8"))
        record = json.loads((evaluation / RUN).read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise ConfigError(f"--add: {exc.filename} not found: {into} was not published with its runs") from exc
    found: list[_Listed] = []
    for entry in listed:
        if entry["shipped"]:
            found.append(_Candidate(entry, evaluation / TEST, into, evaluation, evaluation / CURVES, record))
        else:
            found.append(_Listed(entry, evaluation / _test_name(entry)))
    return found


def _seeds(entry: Mapping[str, Any]) -> str:
    return f"hft{entry['hft_seed']}-hgpo{entry['hgpo_seed']}"


def _test_name(entry: Mapping[str, Any]) -> str:
    return f"test.{_seeds(entry)}.jsonl.gz"


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


def _check_seeds(trained: Sequence[_Listed]) -> None:
    seeds = [_seeds(one.entry) for one in trained]
    if twice := sorted({one for one in seeds if seeds.count(one) > 1}):
        raise ConfigError(f"two runs have the seeds {twice[0]}: each may be listed once")


def _check_measured_alike(candidates: Sequence[_Candidate]) -> None:
    """Raise ConfigError where figures of two runs cannot be compared."""
    first, *others = (one.record["config"]["eval"] for one in candidates)
    for other in others:
        for name in ALIKE:
            if first[name] != other[name]:
                raise ConfigError(f"eval.{name}: a run was measured with {first[name]}, another with {other[name]}")


def _write(into: Path, best: _Candidate, trained: Sequence[_Listed], config: EvalConfig) -> None:
    evaluation = into / "evaluation"
    shutil.copytree(best.checkpoint, into, dirs_exist_ok=True, ignore=shutil.ignore_patterns("evaluation", "README.md"))
    evaluation.mkdir()
    for name in ROWS:
        shutil.copyfile(best.rows / name, evaluation / name)
    settings = folder_of(evaluation / TEST)
    settings.mkdir()
    shutil.copyfile(folder_of(best.rows / TEST) / SETTINGS, settings / SETTINGS)
    write_report(evaluation, config)
    shutil.copyfile(best.curves, evaluation / CURVES)
    for one in trained:
        if one is not best:
            shutil.copyfile(one.test, evaluation / _test_name(one.entry))
    table = [{**one.entry, "shipped": one is best} for one in trained]
    write_json(evaluation / RUNS, table)
    write_json(evaluation / RUN, {name: best.record[name] for name in ("config", "environment", "seconds")})
    # Sampled as the run says, looked at as this call says.
    measured = best.record["config"]["eval"]
    sampled = {name: measured[name] for name in ("samples", "temperature", "max_new_tokens")}
    truncated = shown(truncated_share(read_rows(best.test)), ".2%")
    report = report_text(best.rows, config)
    card = model_card(table, report, replace(config, **sampled), truncated, parameter_count(into))
    write_text(into / "README.md", card)
