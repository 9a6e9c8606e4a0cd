"""Evaluation of a checkpoint on the task suite: raw rows, the figures derived from them, report and plots."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from lhrm_train.calibration import calibrate
from lhrm_train.config import EvalConfig
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
from lhrm_train.plots import plot_difficulty
from lhrm_train.report import (
    baseline_lines,
    context_accuracy,
    detail_table,
    key_figures,
    key_line,
    overall_table,
)


def rows_once(path: Path, make: Callable[[], Sequence[Row | ContextRow]]) -> None:
    """Write the rows that `make` returns, unless the file is already there."""
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
    rows_once(rows / "validation.jsonl.gz", lambda: evaluate(checkpoint, validation_config(config)))
    rows_once(rows / "test.jsonl.gz", lambda: evaluate(checkpoint, config))
    rows_once(rows / "contexts.jsonl.gz", lambda: _context_eval(checkpoint, config))


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
