"""Figures for people: accuracy and think rate against difficulty, and the training curves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from lhrm_train.evaluate import Row
from lhrm_train.report import group, mean, summarise

THINK, NO_THINK, FREE = "#1f6fb2", "#d1792b", "#2b8a3e"


def plot_difficulty(rows: Sequence[Row], margin: float, path: Path) -> None:
    """Draw per difficulty level: accuracy of the three policies, think rate, and tokens."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    kinds = group(rows, lambda row: row.kind)
    kinds = {kind: part for kind, part in kinds.items() if len({row.level for row in part}) > 1}
    columns = 5
    lines = -(-len(kinds) // columns)
    figure, axes = pyplot.subplots(
        lines, columns, figsize=(3.0 * columns, 2.7 * lines), sharey=True, squeeze=False, layout="constrained"
    )
    for axis in axes.flat[len(kinds) :]:
        axis.set_visible(False)
    for axis, (kind, part) in zip(axes.flat, kinds.items(), strict=False):
        by_level = {
            int(level): summarise(some, margin) for level, some in group(part, lambda row: str(row.level)).items()
        }
        levels = list(by_level)
        axis.bar(levels, [s.think_rate for s in by_level.values()], color="#d9d9d9", label="think rate")
        for name, colour, values in (
            ("always think", THINK, [s.accuracy_think for s in by_level.values()]),
            ("never think", NO_THINK, [s.accuracy_no_think for s in by_level.values()]),
            ("free choice", FREE, [s.accuracy_free for s in by_level.values()]),
        ):
            style = "--" if name == "free choice" else "-"
            axis.plot(levels, values, style, marker="o", markersize=3.5, color=colour, label=name)
        axis.set_title(kind, fontsize=10)
        axis.set_xticks(levels)
        axis.set_ylim(-0.03, 1.05)
        axis.set_xlabel("difficulty level", fontsize=8)
    axes[0][0].set_ylabel("share of answers")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4, frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def plot_curves(metrics: Path, names: Sequence[str], path: Path, smooth: int = 1) -> None:
    """Draw the named columns of a metrics file over steps, each a moving mean over `smooth` steps."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    figure, axis = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
    for name in names:
        values = [row[name] for row in rows]
        averaged = [mean(values[max(0, i - smooth + 1) : i + 1]) for i in range(len(values))]
        axis.plot([row["step"] for row in rows], averaged, label=name)
    axis.set_xlabel("step")
    axis.legend(frameon=False, fontsize=8)
    axis.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
