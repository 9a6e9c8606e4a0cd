"""Draw a run: tokens of both arms pair by pair, and latency per arm."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .summary import Pair, Summary
from .workload import Arm

_COLOURS = {"think": "tab:orange", "no_think": "tab:blue"}


def draw(pairs: Sequence[Pair], summary: Summary, path: Path) -> None:
    """Write the plot as PNG."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_tokens(left, pairs)
    _draw_latency(right, summary)
    figure.savefig(path, dpi=120)


def _draw_tokens(axes: Axes, pairs: Sequence[Pair]) -> None:
    for mode, colour in _COLOURS.items():
        chosen = [pair for pair in pairs if pair.auto.accounting.mode == mode]
        think = [pair.think.usage.completion_tokens for pair in chosen]
        auto = [pair.auto.usage.completion_tokens for pair in chosen]
        axes.scatter(think, auto, s=22, alpha=0.6, color=colour, label=f"auto chose {mode} ({len(chosen)})")
    axes.axline((0, 0), slope=1, color="grey", linewidth=1, linestyle="--", label="no saving")
    axes.set(xlabel="completion tokens, always-think", ylabel="completion tokens, auto", title="One point per pair")
    axes.legend()


def _draw_latency(axes: Axes, summary: Summary) -> None:
    auto, think = summary.arms[Arm.AUTO], summary.arms[Arm.THINK]
    names = ["first token", "first answer token", "total"]
    for offset, label, arm, colour in ((-0.2, "auto", auto, "tab:blue"), (0.2, "always-think", think, "tab:grey")):
        quantiles = [arm.first_token_ms, arm.first_answer_ms, arm.total_ms]
        for which, name, alpha in ((1, "p95", 0.35), (0, "p50", 1.0)):
            values = [pair[which] for pair in quantiles]
            known = {i + offset: value for i, value in enumerate(values) if value is not None}
            bars = (list(known), list(known.values()), 0.36)
            axes.bar(*bars, color=colour, alpha=alpha, label=f"{label}, {name}")
    axes.set_xticks(range(len(names)), names)
    axes.set(ylabel="milliseconds", title="Latency under the mixed load of both arms")
    axes.legend()
