"""The report of a checkpoint on the task suite: figures, tables and plots derived from its raw rows."""

from __future__ import annotations

from pathlib import Path

from lhrm_train.atomic import write_text
from lhrm_train.bars import bar_table
from lhrm_train.config import EvalConfig
from lhrm_train.evaluate_suite import CONTEXTS, HFT_TEST, TEST, folder_of
from lhrm_train.evaluation_report import DIFFICULTY, REPORT, settings_text
from lhrm_train.measure import SETTINGS, read_settings
from lhrm_train.plots import plot_difficulty
from lhrm_train.report import (
    baseline_lines,
    context_accuracy,
    detail_table,
    key_figures,
    key_line,
    overall_table,
)
from lhrm_train.rows import read_context_rows, read_rows
from lhrm_train.suite_bars import suite_bars


def figures_of(rows: Path, config: EvalConfig) -> dict[str, float]:
    """Return the key figures of a folder of raw rows."""
    figures = key_figures(read_rows(rows / TEST), config.margin)
    contexts = context_accuracy(read_context_rows(rows / CONTEXTS))
    figures |= {f"accuracy_{name.replace(' ', '_')}": round(value, 4) for name, value in contexts.items()}
    hft = rows / HFT_TEST
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
    test = read_rows(rows / TEST)
    asked = read_context_rows(rows / CONTEXTS)
    contexts = context_accuracy(asked)
    before = read_rows(rows / HFT_TEST) if (rows / HFT_TEST).is_file() else []
    bars = bar_table(suite_bars(test, before, asked, config.margin))
    parts = [overall_table(test, config.margin), baseline_lines(test, config.margin), bars]
    lines = ["| context | free-choice accuracy |", "|---|---|"]
    parts.append("\n".join(lines + [f"| {name} | {value:.3f} |" for name, value in contexts.items()]))
    parts.append(detail_table(test, config.margin))
    return "\n\n".join(parts) + "\n"


def write_report(rows: Path, config: EvalConfig) -> str:
    """Derive report.md and difficulty.png from the raw rows; return the report followed by the key line.

    What was measured and how stands in front, where `evaluate_suite` left its settings beside the rows.
    """
    test, text = read_rows(rows / TEST), report_text(rows, config)
    folder = folder_of(rows / TEST)
    if (folder / SETTINGS).is_file():
        text = settings_text(read_settings(folder), test) + "\n\n" + text
    write_text(rows / REPORT, text)
    plot_difficulty(test, config.margin, rows / DIFFICULTY)
    return text + "\n" + key_line(figures_of(rows, config))


def suite_figures(rows: Path, config: EvalConfig) -> dict[str, object]:
    """Return what the manifest quotes of an evaluation on the suite."""
    return {"split": config.split, "samples_per_mode": config.samples, **figures_of(rows, config)}
