"""The report of one evaluation: Markdown, plots and the key line, from its directory alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lhrm_train.atomic import write_text
from lhrm_train.config import ConfigError
from lhrm_train.curve import ThresholdPoint, curve, curve_table, reference_points
from lhrm_train.intervals import interval_table, intervals
from lhrm_train.measure import ROWS, read_settings
from lhrm_train.plots import plot_curve, plot_difficulty
from lhrm_train.report import counted, detail_table, key_figures, key_line, markdown, overall_table, policy_table, shown
from lhrm_train.rows import ModeSamples, Row, known_mean, row_log

# What a report's directory holds beside rows and settings.
REPORT, DIFFICULTY, CURVE = "report.md", "difficulty.png", "curve.png"
TRUNCATED_WARNING = 0.05  # of the completions


def report_from_rows(out: Path) -> str:
    """Write report.md, difficulty.png and curve.png from the rows in `out`; return the report, key line last.

    Raises ConfigError when `out` is not an evaluation's directory or not one of its rows can be used.
    """
    settings = read_settings(out)
    analysis = settings["analysis"]
    rows = sorted(row_log(out / ROWS).read(), key=lambda row: row.index)
    if not counted(rows):
        raise ConfigError(f"{out / ROWS} has no row with a valid sample of every mode")
    margin = float(analysis["margin"])
    found = intervals(rows, margin, analysis["resamples"], analysis["confidence"], analysis["seed"])
    points = curve(rows)
    parts = [
        f"# Evaluation of {settings['sampling']['model']}",
        settings_text(settings, rows),
        "## Policies\n\n" + policy_table(rows, margin),
        "## Intervals\n\n" + _interval_note(analysis) + "\n\n" + interval_table(found, analysis["confidence"]),
        "## Thresholds\n\n" + _curve_text(points),
        "## Groups\n\n" + overall_table(rows, margin) + "\n\n" + detail_table(rows, margin),
        "## Quality of the samples\n\n" + _quality_table(rows),
    ]
    text = "\n\n".join(parts) + "\n"
    write_text(out / REPORT, text)
    plot_difficulty(rows, margin, out / DIFFICULTY)
    if points:
        plot_curve(points, reference_points(rows, margin), out / CURVE)
    return text + "\n" + key_line(_figures(rows, margin))


def data_text(data: Mapping[str, Any]) -> str:
    """Return one line about where the questions are from and what was left out on the way; empty if unknown."""
    if "source" not in data:
        return ""
    counts = [f"{name} {number}" for name, number in (data["cleaning"] or {}).items()]
    counts += [f"asked {data['asked']}"]
    if data["not_asked"]:
        counts += [f"not asked {data['not_asked']} (eval.prompts)"]
    if data["held_out"]:
        counts += [f"held out for the savings calibration {data['held_out']}"]
    return f"Questions of {data['source']}: {', '.join(counts)}."


def _truncated(samples: Sequence[ModeSamples]) -> float:
    return known_mean(flag for one in samples for flag in one.truncated)


def truncated_share(rows: Sequence[Row]) -> float:
    """Return the share of all completions that were cut at the limit; NaN where it is not known."""
    return _truncated([samples for row in rows for samples in (row.think, row.no_think)])


def _cut_text(settings: dict[str, Any], rows: Sequence[Row]) -> str:
    """Return the share of completions that were cut, per mode, with a warning where it is large."""
    think, no_think = _truncated([row.think for row in rows]), _truncated([row.no_think for row in rows])
    limit = settings["sampling"]["max_new_tokens"]
    text = f"Cut at {limit} new tokens: {shown(think, '.1%')} of think, {shown(no_think, '.1%')} of no-think."
    every = truncated_share(rows)
    if every > TRUNCATED_WARNING:
        text += (
            f"\n\n**Warning: {every:.1%} of the completions were cut at max_new_tokens = {limit} and count as wrong. "
            f"Raise eval.max_new_tokens.**"
        )
    return text


def settings_text(settings: dict[str, Any], rows: Sequence[Row]) -> str:
    """Return in words what was measured, how, and what went wrong."""
    sampling, margin = settings["sampling"], settings["analysis"]["margin"]
    scorers = ", ".join(f"{name} ({count})" for name, count in settings["data"]["scorers"].items())
    lines = [
        f"{len(rows)} of {sampling['prompts']} prompts, {sampling['samples']} samples per mode at temperature "
        f"{sampling['temperature']:g}, at most {sampling['max_new_tokens']} new tokens, seed {sampling['seed']}; "
        f"scored by {scorers}. "
        f"Free choice: think iff P(think) >= 0.5. Hybrid Accuracy: the share of prompts whose free choice is the mode "
        f"with the higher mean score; means within {margin:g} go to the mode with fewer tokens.",
        data_text(settings["data"]),
        _cut_text(settings, rows),
    ]
    left_out = [row for row in rows if not row.counts]
    invalid = sum(row.invalid for row in rows)
    if invalid or left_out:
        first = next((row.error for row in rows if row.error), "")
        lines.append(
            f"**{invalid} samples are invalid** (no answer came, or the scorer failed); they count neither as right "
            f"nor as wrong. {len(left_out)} prompts are left out. First failure: {' '.join(first.split())}"
        )
    if not any(row.decides for row in rows):
        lines.append(
            "This endpoint reports no P(think) and takes no mode: it is measured as a model that always thinks, and "
            "everything that needs a choice is absent."
        )
    return "\n\n".join(filter(None, lines))


def _interval_note(analysis: dict[str, Any]) -> str:
    return f"Bootstrap over prompts, paired, {analysis['resamples']} resamples."


def _curve_text(points: Sequence[ThresholdPoint]) -> str:
    if not points:
        return "None: there is no P(think) to put a threshold on."
    return f"One set of samples, every threshold (`{CURVE}`).\n\n" + curve_table(points)


def _quality_table(rows: Sequence[Row]) -> str:
    """Return per mode the share of samples that are cut, hold a tag, are overlong or leak; a dash where unknown."""
    lines = []
    for name, samples in (("think", [row.think for row in rows]), ("no-think", [row.no_think for row in rows])):
        if any(one.scores for one in samples):
            lines.append([name, *(shown(value, ".2%") for value in _qualities(samples))])
    return markdown(["mode", "invalid", "truncated", "holds a tag", "overlong", "leak words"], lines)


def _qualities(samples: Sequence[ModeSamples]) -> list[float]:
    return [
        known_mean(score is None for one in samples for score in one.scores),
        _truncated(samples),
        known_mean(flag for one in samples for flag in one.leaked),
        known_mean(flag for one in samples for flag in one.overlong),
        known_mean(None if count is None else count > 0 for one in samples for count in one.leak_words),
    ]


def _figures(rows: Sequence[Row], margin: float) -> dict[str, float]:
    """Return the key figures that were measured."""
    figures = {
        **key_figures(rows, margin),
        "prompts_left_out": sum(not row.counts for row in rows),
        "invalid_samples": sum(row.invalid for row in rows),
        "truncated_think": round(_truncated([row.think for row in rows]), 4),
        "truncated_no_think": round(_truncated([row.no_think for row in rows]), 4),
    }
    return {name: value for name, value in figures.items() if not math.isnan(value)}
