"""The report's plots, each as the bytes of a PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from .load import StepFigures
from .pairs import collect, complete
from .rows import Row
from .slo import Slo, latency_ms
from .summary import Summary

COLOURS = ("#2b8a3e", "#1f6fb2", "#d1792b", "#8e44ad", "#c0392b", "#16a085", "#7f8c8d")
ORACLE_COLOUR = "#111111"
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
COLUMNS = 2
MOST_PANELS, MOST_LEVELS = 4, 20


@dataclass(frozen=True)
class Plot:
    """A plot under its file name, with a sentence that says what it shows."""

    name: str
    caption: str
    png: bytes


def plots(rows: Sequence[Row], summary: Summary, slos: Sequence[Slo]) -> list[Plot]:
    """Return the plots for which there are data."""
    measured = [row for row in rows if not row.warmup]
    drawn = [
        ("tokens", "Completion tokens of every pair, arm against baseline.", _tokens(measured, summary)),
        ("curve", "Accuracy against cost: every threshold on P(think), the arms and the oracle.", _curve(summary)),
        ("difficulty", "Share answered in think mode, and accuracy, by level.", _difficulty(summary)),
        ("latency", "Share of requests answered in time, all loads together.", _latency(measured, summary, slos)),
        ("load", "Goodput and waiting at every load; a load without any goodput has no mark.", _load(summary)),
    ]
    return [Plot(f"{name}.png", caption, _png(figure)) for name, caption, figure in drawn if figure is not None]


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    # Without the date and the version, equal rows give equal files.
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _figure(panels: int) -> tuple[Figure, list[Axes]]:
    columns = min(panels, COLUMNS)
    rows = math.ceil(panels / columns)
    figure = Figure(figsize=(5.6 * columns, 4.2 * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in axes[panels:]:
        spare.set_axis_off()
    for one in axes[:panels]:
        one.grid(True, alpha=0.25)
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes[:panels]


def _coloured(summary: Summary) -> dict[str, str]:
    return {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(summary.arms)}


def _tokens(rows: Sequence[Row], summary: Summary) -> Figure | None:
    others = [name for name, one in summary.differences.items() if one.pairs][:MOST_PANELS]
    if not others:
        return None
    figure, axes = _figure(len(others))
    pairs = collect(rows)
    for axis, arm in zip(axes, others, strict=True):
        both = complete(pairs, arm, summary.baseline)
        for mode, colour in (("think", COLOURS[2]), ("no_think", COLOURS[1])):
            mine = [pair for pair in both if pair.reply(arm).mode == mode]
            places = [pair.tokens(summary.baseline) for pair in mine], [pair.tokens(arm) for pair in mine]
            if mine:
                axis.scatter(*places, s=16, alpha=0.45, color=colour, linewidths=0, label=f"{mode} ({len(mine)})")
        axis.axline((0, 0), slope=1, color="grey", linewidth=1, linestyle="--", label="no saving")
        axis.set(xlabel=f"completion tokens, {summary.baseline}", ylabel=f"completion tokens, {arm}")
        most = 1.05 * max(pair.tokens(name) for pair in both for name in (arm, summary.baseline))
        axis.set(xlim=(0, most), ylim=(0, most))
        axis.legend(title=f"{arm} ran", fontsize=8)
    return figure


def _curve(summary: Summary) -> Figure | None:
    places = {
        name: (arm.completion.mean, 100 * arm.accuracy)
        for name, arm in summary.arms.items()
        if arm.accuracy is not None and arm.completion.mean is not None
    }
    if not places:
        return None
    figure, (axis,) = _figure(1)
    if summary.curve:
        tokens, accuracy = zip(*((point.tokens, 100 * point.accuracy) for point in summary.curve), strict=True)
        axis.plot(tokens, accuracy, color="grey", linewidth=1.2, label="threshold on P(think), 1 to 0", zorder=1)
    colours = _coloured(summary)
    for name, place in places.items():
        axis.scatter(*place, s=60, color=colours[name], label=name, zorder=3)
    if summary.oracle is not None:
        best = summary.oracle.tokens, 100 * summary.oracle.accuracy
        axis.scatter(*best, s=110, marker="*", color=ORACLE_COLOUR, label="oracle", zorder=2)
    axis.set(xlabel="completion tokens per request", ylabel="accuracy, %")
    axis.legend(fontsize=8)
    return figure


def _difficulty(summary: Summary) -> Figure | None:
    levels = summary.levels
    if not 2 <= len(levels) <= MOST_LEVELS:
        return None
    figure, (left, right) = _figure(2)
    places = range(len(levels))
    for (name, colour), marker in zip(_coloured(summary).items(), cycle(MARKERS), strict=False):
        rates = [100 * _or_nan(group.think_rate[name]) for group in levels]
        scores = [100 * _or_nan(group.accuracy[name]) for group in levels]
        for axis, values in ((left, rates), (right, scores)):
            axis.plot(places, values, marker=marker, color=colour, label=name, alpha=0.8)
    for axis, title in ((left, "answered in think mode, %"), (right, "accuracy, %")):
        axis.set_xticks(places, [f"{group.name}\n({group.pairs})" for group in levels])
        axis.set(xlabel="level (pairs)", ylabel=title, ylim=(-3, 103))
        axis.legend(fontsize=8)
    return figure


def _latency(rows: Sequence[Row], summary: Summary, slos: Sequence[Slo]) -> Figure | None:
    figure, axes = _figure(2)
    found = False
    for axis, point in zip(axes, ("first_answer", "total"), strict=True):
        for name, colour in _coloured(summary).items():
            mine = [row for row in rows if row.arm == name]
            known = sorted(ms for row in mine if row.error is None and (ms := latency_ms(row, point)) is not None)
            if known:
                found = True
                # Requests without an answer never arrive, so their curve ends below 100 %.
                shares = [100 * (place + 1) / len(mine) for place in range(len(known))]
                axis.step(known, shares, where="post", color=colour, label=name)
        for slo in slos:
            if slo.point == point:
                axis.axvline(slo.limit_ms, color="grey", linewidth=1, linestyle=":", label=str(slo))
        axis.set(xlabel=f"{point.replace('_', ' ')}, ms from the scheduled arrival", ylabel="requests, %", xscale="log")
        axis.set(ylim=(0, 102))
        if axis.get_legend_handles_labels()[0]:  # matplotlib warns of a legend of nothing
            axis.legend(fontsize=8)
    return figure if found else None


def _load(summary: Summary) -> Figure | None:
    if len({step.load for step in summary.steps}) < 2:
        return None
    slos = list(summary.steps[0].met)
    figure, axes = _figure(len(slos) + 1)
    unit = "requests at a time" if summary.steps[0].load.concurrency is not None else "arrivals per second"
    for axis, slo in zip(axes, slos, strict=False):
        for name, colour, mine in _by_arm(summary):
            values = [step.goodput[slo] or math.nan for step in mine]
            axis.plot([step.load.size for step in mine], values, marker="o", color=colour, label=name)
        axis.set(ylabel="goodput, requests/s", title=f"SLO {slo} ms", yscale="log")
    for name, colour, mine in _by_arm(summary):
        late = [_or_nan(step.first_answer_ms[2]) for step in mine]
        axes[-1].plot([step.load.size for step in mine], late, marker="o", color=colour, label=name)
    axes[-1].set(ylabel="first answer token, p95 ms", yscale="log")
    _load_axes(axes, sorted({step.load.size for step in summary.steps}), unit)
    return figure


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _load_axes(axes: Sequence[Axes], sizes: Sequence[float], unit: str) -> None:
    for axis in axes:
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_locator(FixedLocator(list(sizes)))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(ScalarFormatter())
        axis.set_xlabel(unit)
        axis.legend(fontsize=8)


def _by_arm(summary: Summary) -> Iterator[tuple[str, str, list[StepFigures]]]:
    """Yield name, colour and steps of every arm."""
    for name, colour in _coloured(summary).items():
        yield name, colour, [step for step in summary.steps if step.arm == name]
