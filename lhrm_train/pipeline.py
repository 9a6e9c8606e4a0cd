"""A run from a base to an evaluated checkpoint; every finished stage is skipped on a second call."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lhrm_train.atomic import write_json
from lhrm_train.calibration import calibrate
from lhrm_train.checkpoint import is_checkpoint
from lhrm_train.compatibility import check_positions
from lhrm_train.config import ConfigError, RunConfig
from lhrm_train.devices import accelerator
from lhrm_train.evaluate_suite import VALIDATION, evaluate_before_hgpo, evaluate_suite
from lhrm_train.evaluation import evaluate_questions, file_figures, questions_of
from lhrm_train.format import ChatTokenizer
from lhrm_train.init import base_from
from lhrm_train.manifest_settings import finish_manifest, recorded
from lhrm_train.measure import SETTINGS
from lhrm_train.metrics import METRICS_NAME
from lhrm_train.nano import build_base
from lhrm_train.plots import plot_curves
from lhrm_train.rows import read_rows
from lhrm_train.run_card import write_run_card
from lhrm_train.run_record import RunRecord
from lhrm_train.samplers import LocalSampler
from lhrm_train.streams import check_problems, demonstration_data, problem_data
from lhrm_train.suite_report import suite_figures, write_report
from lhrm_train.train_hft import train_hft
from lhrm_train.train_hgpo import train_hgpo

# Columns of each stage's metrics that are drawn, and over how many steps they are smoothed.
CURVES: Mapping[str, tuple[tuple[str, ...], int]] = MappingProxyType(
    {"hft": (("loss",), 20), "hgpo": (("agreement", "think_rate", "accuracy_think"), 3)}
)


@dataclass(frozen=True)
class RunFiles:
    """Where a run keeps what it made."""

    out: Path

    @property
    def base(self) -> Path:
        """What HFT starts from, where the run makes it."""
        return self.out / "base"

    @property
    def hft(self) -> Path:
        """The checkpoint after HFT."""
        return self.out / "hft" / "checkpoint"

    @property
    def hgpo(self) -> Path:
        """The final checkpoint."""
        return self.out / "hgpo" / "checkpoint"

    @property
    def rows(self) -> Path:
        """The folder of raw evaluation rows."""
        return self.out / "evaluation"


def _base(out: Path, config: RunConfig, record: RunRecord) -> Path | None:
    """Return the hybrid-ready base: the given checkpoint, or one that is made here; None where it is not to be."""
    target, path = RunFiles(out).base, config.base.path
    if path and is_checkpoint(Path(path)):
        return Path(path)
    with accelerator().main_process_first():  # the others find it made
        if not is_checkpoint(target) and "base" in config.stages:
            if path:
                record.run("base", lambda: base_from(config.base, target, config.hft_seed))
            else:
                record.run("base", lambda: build_base(target, config.base, config.hft_seed))
    return target if is_checkpoint(target) else None


def _note_data(out: Path, **parts: Any) -> None:
    """Say what was read and what was left out, and keep it beside the stage's curves."""
    if not accelerator().is_main_process:
        return
    known = {name: part if isinstance(part, int) else asdict(part) for name, part in parts.items() if part is not None}
    write_json(out / "data.json", known)
    print(f"{out.name} data: {json.dumps(known)}", file=sys.stderr)


def _run_hft(base: Path, out: Path, config: RunConfig, recipe: dict[str, object]) -> None:
    processes = accelerator().num_processes
    data = demonstration_data(ChatTokenizer.load(base), config.data, config.hft, config.hft_seed, processes)
    _note_data(out, cleaning=data.cleaning, mixture=data.mixture)
    train_hft(base, out, data.config, data.stream, config.hft_seed, recipe)


def _run_hgpo(init: Path, out: Path, config: RunConfig, recipe: dict[str, object]) -> None:
    tokenizer = ChatTokenizer.load(init)
    data = problem_data(tokenizer, config.prompts, config.hgpo, config.hgpo_seed)
    check_problems(data, tokenizer, config.reward)  # an unknown scorer ends the run now, not at its first use
    _note_data(out, cleaning=data.cleaning, prompts_too_long=data.too_long)
    train_hgpo(init, out, config.hgpo, config.reward, data.stream, config.hgpo_seed, recipe)


def _check_hgpo(base: Path, config: RunConfig) -> None:
    """Raise before HFT what HGPO would raise hours later."""
    check_positions(base, config.hgpo.row_length)
    tokenizer = ChatTokenizer.load(base)
    data = problem_data(tokenizer, config.prompts, config.hgpo, config.hgpo_seed)
    check_problems(data, tokenizer, config.reward)


def _draw_curves(out: Path) -> None:
    """Draw the curves of finished stages, also of one that was killed before its were drawn."""
    for stage, (names, smooth) in CURVES.items():
        target = out / stage / "curves.png"
        if is_checkpoint(out / stage / "checkpoint") and not target.is_file():
            plot_curves(out / stage / METRICS_NAME, names, target, smooth)


def _run_eval(start: Path | None, final: Path, out: Path, config: RunConfig) -> str:
    """Evaluate `final`, and `start` before it where that is another checkpoint; return the report.

    Figures go into the manifest of a checkpoint in `out` only: others are not this run's.
    """
    rows = RunFiles(out).rows
    mine = final.resolve().is_relative_to(out.resolve())
    if config.test.source != "suite":
        sampler = LocalSampler.load(final, config.eval)
        report = evaluate_questions(sampler, questions_of(config.test, config), rows, config)
        if mine:
            finish_manifest(final, config, file_figures(rows, config), None)
        return report
    if start is not None and start != final:
        evaluate_before_hgpo(LocalSampler.load(start, config.eval), rows, config.eval)
    evaluate_suite(LocalSampler.load(final, config.eval), rows, config.eval)
    report = write_report(rows, config.eval)
    if mine:
        finish_manifest(final, config, suite_figures(rows, config.eval), calibrate(read_rows(rows / VALIDATION)))
    return report


def _refuse_rows_of_another(out: Path, config: RunConfig) -> None:
    """Raise ConfigError, before hours of training, where the new checkpoint could not be evaluated."""
    rows = RunFiles(out).rows
    if "eval" in config.stages and any(rows.rglob(SETTINGS)):
        raise ConfigError(f"{rows} holds an evaluation of an earlier checkpoint than this run will end with: move it")


def _train(out: Path, config: RunConfig, hft: Path | None, record: RunRecord) -> tuple[Path | None, Path | None]:
    """Run the training stages that are asked for and not finished.

    Returns the checkpoint that HGPO starts from and the last one of the run; either may be absent. Raises ConfigError
    for a stage without its input.
    """
    files, stages = RunFiles(out), config.stages
    recipe = {"hft_seed": config.hft_seed, "hgpo_seed": config.hgpo_seed, **recorded(config)}
    start = hft or (files.hft if is_checkpoint(files.hft) else None)
    if is_checkpoint(files.hgpo):
        return start, files.hgpo
    if start is None and "hft" not in stages:
        if "hgpo" in stages:
            missing = f"{files.hft} is none; add 'hft' to stages, or name one with --hft"
            raise ConfigError(f"stage 'hgpo' has nothing to start from: {missing}")
        base = _base(out, config, record)
        # A base is no result of a run, unless it is asked for by name.
        return None, base if "base" in stages else None
    if start is None:
        base = _base(out, config, record)
        if base is None:
            raise ConfigError(f"stage 'hft' has nothing to start from: {files.base} is none; add 'base' to stages")
        _refuse_rows_of_another(out, config)
        if "hgpo" in stages:
            _check_hgpo(base, config)
        record.run("hft", partial(_run_hft, base, out / "hft", config, recipe))
        start = files.hft
    if "hgpo" not in stages:
        return None, start
    _refuse_rows_of_another(out, config)
    record.run("hgpo", partial(_run_hgpo, start, out / "hgpo", config, recipe))
    return start, files.hgpo


def run(out: Path, config: RunConfig, hft: Path | None = None) -> str:
    """Run the stages of `config` and return the report. `hft` starts HGPO from a finished HFT checkpoint instead.

    Finished stages in `out` are used, whatever `config.stages` says. Raises ConfigError for a stage whose input is
    missing and for other settings or data than the run began with, InterruptedRunError after saving when asked to
    stop; the same call goes on from there.
    """
    record = RunRecord(out, config, hft)
    start, final = _train(out, config, hft, record)
    main = accelerator().is_main_process
    if main:
        _draw_curves(out)
    if "eval" not in config.stages or not main:
        return f"checkpoint={final}"
    if final is None:
        raise ConfigError(f"stage 'eval' has no checkpoint: none is in {out}; add the stages that make one")
    reports: list[str] = []
    record.run("eval", lambda: reports.append(_run_eval(start, final, out, config)))
    write_run_card(out, config, reports[0], final)
    return reports[0]
