"""The nano run from nothing: base, HFT, HGPO, evaluation; every finished stage is skipped on a second call."""

from __future__ import annotations

import json
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

from lhrm_train.calibration import calibrate
from lhrm_train.checkpoint import is_checkpoint
from lhrm_train.config import EvalConfig, RunConfig
from lhrm_train.evaluate import (
    ContextRow,
    Row,
    context_rows,
    evaluate,
    load_for_evaluation,
    read_context_rows,
    read_rows,
    write_rows,
)
from lhrm_train.format import Manifest
from lhrm_train.nano import build_base
from lhrm_train.plots import plot_curves, plot_difficulty
from lhrm_train.report import (
    baseline_lines,
    context_accuracy,
    detail_table,
    key_figures,
    key_line,
    overall_table,
)
from lhrm_train.train_hft import train_hft
from lhrm_train.train_hgpo import train_hgpo


@dataclass(frozen=True)
class RunFiles:
    """Where a run keeps what it made."""

    out: Path

    @property
    def base(self) -> Path:
        """The random base."""
        return self.out / "base"

    @property
    def hgpo(self) -> Path:
        """The final checkpoint."""
        return self.out / "hgpo" / "checkpoint"

    @property
    def rows(self) -> Path:
        """The folder of raw evaluation rows."""
        return self.out / "evaluation"


def _environment() -> dict[str, str]:
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    return {
        "commit": commit,
        "python": platform.python_version(),
        "machine": platform.machine(),
        **{name: version(name) for name in ("torch", "transformers", "tokenizers", "accelerate")},
    }


class _Stages:
    """Times each stage and keeps the run's own description up to date."""

    def __init__(self, out: Path, config: RunConfig) -> None:
        self._path = out / "run.json"
        self._record = {"config": asdict(config), "environment": _environment(), "seconds": {}}
        if self._path.is_file():
            self._record["seconds"] = json.loads(self._path.read_text(encoding="utf-8"))["seconds"]
        out.mkdir(parents=True, exist_ok=True)
        self._write()

    def run(self, name: str, work: Callable[[], object]) -> None:
        start = time.monotonic()
        work()
        seconds = self._record["seconds"]
        # A stage that was interrupted and resumed counts all of its parts.
        seconds[name] = round(seconds.get(name, 0.0) + time.monotonic() - start, 1)
        self._write()

    def _write(self) -> None:
        self._path.write_text(json.dumps(self._record, indent=1) + "\n", encoding="utf-8")


def _rows_once(path: Path, make: Callable[[], Sequence[Row | ContextRow]]) -> None:
    if not path.is_file():
        write_rows(path, make())


def _context_eval(checkpoint: Path, config: EvalConfig) -> list[ContextRow]:
    lm, tokenizer = load_for_evaluation(checkpoint)
    return context_rows(lm, tokenizer, config, config.context_questions)


def validation_config(config: EvalConfig) -> EvalConfig:
    """Return the settings of the validation rows, which choose the shipped seed and calibrate savings."""
    return replace(config, split="validation", samples=config.validation_samples, prompts=config.prompts // 2)


def evaluate_run(checkpoint: Path, rows: Path, config: EvalConfig) -> None:
    """Write the validation, test and context rows of a checkpoint; existing files are kept."""
    _rows_once(rows / "validation.jsonl.gz", lambda: evaluate(checkpoint, validation_config(config)))
    _rows_once(rows / "test.jsonl.gz", lambda: evaluate(checkpoint, config))
    _rows_once(rows / "contexts.jsonl.gz", lambda: _context_eval(checkpoint, config))


def figures_of(rows: Path, config: EvalConfig) -> dict[str, float]:
    """Return the key figures of a folder of raw rows."""
    figures = key_figures(read_rows(rows / "test.jsonl.gz"), config.margin)
    contexts = context_accuracy(read_context_rows(rows / "contexts.jsonl.gz"))
    figures |= {f"accuracy_{name.replace(' ', '_')}": round(value, 4) for name, value in contexts.items()}
    hft = rows / "hft_test.jsonl.gz"
    if hft.is_file():
        before = key_figures(read_rows(hft), config.margin)
        figures |= {
            "hft_accuracy_think": before["accuracy_think"],
            "hft_think_rate": before["think_rate"],
            "hft_hacc": before["hacc"],
        }
    return figures


def report_text(rows: Path, config: EvalConfig) -> str:
    """Return the Markdown report of a folder of raw rows."""
    test = read_rows(rows / "test.jsonl.gz")
    contexts = context_accuracy(read_context_rows(rows / "contexts.jsonl.gz"))
    parts = [overall_table(test, config.margin), baseline_lines(test, config.margin)]
    lines = ["| context | free-choice accuracy |", "|---|---|"]
    parts.append("\n".join(lines + [f"| {name} | {value:.3f} |" for name, value in contexts.items()]))
    parts.append(detail_table(test, config.margin))
    return "\n\n".join(parts) + "\n"


def write_report(rows: Path, config: EvalConfig) -> str:
    """Derive report.md and difficulty.png from the raw rows; return the report followed by the key line."""
    text = report_text(rows, config)
    (rows / "report.md").write_text(text, encoding="utf-8")
    plot_difficulty(read_rows(rows / "test.jsonl.gz"), config.margin, rows / "difficulty.png")
    return text + "\n" + key_line(figures_of(rows, config))


def finish_manifest(checkpoint: Path, rows: Path, config: EvalConfig) -> None:
    """Write the evaluation figures and the savings calibration into the checkpoint's manifest."""
    calibration = calibrate(read_rows(rows / "validation.jsonl.gz"))
    evaluation = {"split": config.split, "samples_per_mode": config.samples, **figures_of(rows, config)}
    manifest = Manifest.load(checkpoint)
    replace(manifest, evaluation=evaluation, savings_calibration=calibration).save(checkpoint)


def run_nano(out: Path, config: RunConfig, hft: Path | None = None) -> str:
    """Run every stage and return the report. `hft` starts from a finished HFT checkpoint instead."""
    files, stages = RunFiles(out), _Stages(out, config)
    recipe: dict[str, object] = {"hft_seed": config.hft_seed, "hgpo_seed": config.hgpo_seed}
    start = hft or out / "hft" / "checkpoint"
    if hft is None:
        if not is_checkpoint(files.base):
            stages.run("base", lambda: build_base(files.base, config.base, config.hft_seed))
        if not is_checkpoint(start):
            stages.run("hft", lambda: train_hft(files.base, out / "hft", config.hft, config.hft_seed, recipe))
    if not is_checkpoint(files.hgpo):
        stages.run("hgpo", lambda: train_hgpo(start, out / "hgpo", config.hgpo, config.hgpo_seed, recipe))
    before = replace(config.eval, samples=config.eval.hft_samples)
    stages.run("evaluate_hft", lambda: _rows_once(files.rows / "hft_test.jsonl.gz", lambda: evaluate(start, before)))
    stages.run("evaluate", lambda: evaluate_run(files.hgpo, files.rows, config.eval))
    finish_manifest(files.hgpo, files.rows, config.eval)
    plot_curves(out / "hgpo" / "metrics.jsonl", ("agreement", "think_rate", "accuracy_think"), out / "hgpo.png", 3)
    return write_report(files.rows, config.eval)
