"""Figures for people: accuracy against difficulty and against cost, and the training curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lhrm_train.curve import Point, ThresholdPoint
from lhrm_train.json_lines import read_json_lines
from lhrm_train.report import Summary, counted, group, summarise
from lhrm_train.rows import Row, mean

THINK, NO_THINK, FREE = "#1f6fb2", "#d1792b", "#2b8a3e"
COLUMNS = 5
MOST_KINDS = 40  # names on one axis
LABEL_CHARS = 24


def _pyplot() -> Any:
    try:
        import matplotlib
    except ImportError as exc:
        raise ImportError("plots need the package matplotlib: pip install 'lhrm[train]'") from exc
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _save(pyplot: Any, figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _label(kind: str) -> str:
    short = kind if len(kind) <= LABEL_CHARS else kind[: LABEL_CHARS - 1] + "…"
    return short.replace("$", r"\$")  # a pair of dollars would be set as a formula


def _policies(axis: Any, places: Sequence[int], summaries: Sequence[Summary], joined: bool) -> None:
    """Draw bars of think rate and marks of accuracy; marks that no line joins stand side by side."""
    axis.bar(places, [s.think_rate for s in summaries], color="#d9d9d9", label="think rate")
    for name, colour, shift, values in (
        ("always think", THINK, -0.2, [s.accuracy_think for s in summaries]),
        ("never think", NO_THINK, 0.0, [s.accuracy_no_think for s in summaries]),
        ("free choice", FREE, 0.2, [s.accuracy_free for s in summaries]),
    ):
        style = "none" if not joined else "--" if name == "free choice" else "-"
        shifted = [place + (0.0 if joined else shift) for place in places]
        axis.plot(shifted, values, linestyle=style, marker="o", markersize=3.5, color=colour, label=name)
    axis.set_xticks(places)
    axis.set_ylim(-0.03, 1.05)


def _panels(pyplot: Any, kinds: Mapping[str, Sequence[Row]], margin: float) -> Any:
    """Draw one panel per kind over its levels."""
    columns = min(COLUMNS, len(kinds))
    lines = -(-len(kinds) // columns)
    # Fewer panels are wider: the legend needs the width of three.
    figure, axes = pyplot.subplots(
        lines,
        columns,
        figsize=(max(3.0 * columns, 6.0), 2.7 * lines),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat[len(kinds) :]:
        axis.set_visible(False)
    for axis, (kind, part) in zip(axes.flat, kinds.items(), strict=False):
        by_level = {
            int(level): summarise(some, margin) for level, some in group(part, lambda row: str(row.level)).items()
        }
        levels = sorted(by_level)
        _policies(axis, levels, [by_level[level] for level in levels], joined=True)
        axis.set_title(_label(kind), fontsize=10)
        axis.set_xlabel("difficulty level", fontsize=8)
    return figure, axes


def _one_panel(pyplot: Any, kinds: Mapping[str, Sequence[Row]], margin: float) -> Any:
    """Draw one panel over the kinds that have no levels, the largest ones where there are many."""
    largest = sorted(sorted(kinds, key=lambda kind: -len(kinds[kind]))[:MOST_KINDS])
    figure, axes = pyplot.subplots(
        1, 1, figsize=(max(6.0, 1.5 + 0.45 * len(largest)), 4.2), squeeze=False, layout="constrained"
    )
    axis, places = axes[0][0], list(range(len(largest)))
    _policies(axis, places, [summarise(kinds[kind], margin) for kind in largest], joined=False)
    axis.set_xlim(-1, len(largest))
    axis.set_xticks(
        places, [_label(kind) for kind in largest], rotation=45, ha="right", rotation_mode="anchor", fontsize=8
    )
    return figure, axes


def plot_difficulty(rows: Sequence[Row], margin: float, path: Path) -> None:
    """Draw accuracy of the three policies and think rate: per level where kinds have levels, else per kind.

    Raises ValueError when no row counts.
    """
    kinds = group(counted(rows), lambda row: row.kind)
    if not kinds:
        raise ValueError("no rows to plot")
    with_levels = {kind: part for kind, part in kinds.items() if len({row.level for row in part}) > 1}
    pyplot = _pyplot()
    figure, axes = _panels(pyplot, with_levels, margin) if with_levels else _one_panel(pyplot, kinds, margin)
    axes[0][0].set_ylabel("share of answers")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    _save(pyplot, figure, path)


def plot_curve(points: Sequence[ThresholdPoint], references: Mapping[str, Point], path: Path) -> None:
    """Draw accuracy against mean completion tokens over all thresholds, with the policies to compare it with.

    The dashed line holds every coin, from never to always thinking: a choice that knows something lies above it.
    Raises ValueError on an empty curve.
    """
    if not points:
        raise ValueError("no curve to plot")
    pyplot = _pyplot()
    figure, axis = pyplot.subplots(figsize=(7.2, 4.4), layout="constrained")
    axis.plot([p.tokens for p in points], [p.accuracy for p in points], color=FREE, label="threshold on P(think)")
    ends = [points[0], points[-1]]
    axis.plot([p.tokens for p in ends], [p.accuracy for p in ends], "--", color="#999999", label="coin of any bias")
    looks = {
        "always no-think": ("s", NO_THINK),
        "random": ("X", "#777777"),
        "oracle": ("*", "#8e44ad"),  # the largest, so it is drawn first
        "free choice": ("o", FREE),
        "always think": ("D", THINK),
    }
    for name, (marker, colour) in looks.items():
        if name in references and not math.isnan(references[name].accuracy):
            point = references[name]
            size = 13 if marker == "*" else 8
            label = f"{name}: {point.accuracy:.3f} at {point.tokens:.1f} tokens"
            axis.plot(
                point.tokens,
                point.accuracy,
                marker,
                color=colour,
                markersize=size,
                markeredgecolor="white",
                label=label,
            )
    axis.set_xlabel("mean completion tokens")
    axis.set_ylabel("accuracy")
    axis.margins(0.06, 0.1)
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    _save(pyplot, figure, path)


def plot_curves(metrics: Path, names: Sequence[str], path: Path, smooth: int = 1) -> None:
    """Draw the named columns of a metrics file over steps, each a moving mean over `smooth` steps."""
    pyplot = _pyplot()
    rows = read_json_lines(metrics)
    figure, axis = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
    for name in names:
        values = [math.nan if row[name] is None else row[name] for row in rows]
        averaged = [mean(values[max(0, i - smooth + 1) : i + 1]) for i in range(len(values))]
        axis.plot([row["step"] for row in rows], averaged, label=name)
    axis.set_xlabel("step")
    axis.legend(frameon=False, fontsize=8)
    axis.grid(alpha=0.3)
    _save(pyplot, figure, path)
