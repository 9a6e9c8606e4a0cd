"""Render a summary: Markdown file, terminal tables and the closing line of name=value pairs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from .estimate import CONFIDENCE, Estimate
from .plot import draw
from .rows import RunInfo, read_rows, read_run
from .summary import ArmSummary, GroupSummary, Summary, complete_pairs, summarise
from .workload import Arm

REPORT_NAME, PLOT_NAME = "report.md", "report.png"
_NONE = "-"


@dataclass(frozen=True)
class Grid:
    """A table before it is drawn in Markdown or on the terminal."""

    title: str
    head: Sequence[str]
    body: Sequence[Sequence[str]]


def write_report(directory: Path) -> Summary:
    """Write report.md and report.png beside the rows and return the summary. Raises LoadTestError."""
    rows = read_rows(directory)
    summary = summarise(rows)
    draw(complete_pairs(rows), summary, directory / PLOT_NAME)
    (directory / REPORT_NAME).write_text(markdown(summary, read_run(directory)), encoding="utf-8")
    return summary


def markdown(summary: Summary, run: RunInfo | None) -> str:
    """Return the report as Markdown."""
    parts = ["# Adaptive thinking against always-think", "", *_run_lines(run), f"![figures]({PLOT_NAME})", ""]
    for grid in grids(summary):
        parts += [f"## {grid.title}", "", _md_row(grid.head), _md_row(["---"] * len(grid.head))]
        parts += [*map(_md_row, grid.body), ""]
    parts += ["## How to read this", "", *_notes(), "", "```", value_line(summary), "```", ""]
    return "\n".join(parts)


def print_tables(summary: Summary, console: Console) -> None:
    """Print the tables on the terminal."""
    for grid in grids(summary):
        table = Table(*grid.head, title=grid.title, title_justify="left")
        for row in grid.body:
            table.add_row(*row)
        console.print(table)


def grids(summary: Summary) -> list[Grid]:
    """Return the report's tables; one that would be empty is left out."""
    candidates = [
        _arms_grid(summary.arms),
        _paired_grid(summary),
        _online_grid(summary),
        _group_grid("By level", summary.levels),
        _group_grid("By task", summary.tasks),
        _group_grid("Closed sets (shared with training) apart", summary.sets if len(summary.sets) > 1 else ()),
        Grid("Errors", ["requests", "error"], [[str(count), error] for error, count in summary.errors.items()]),
    ]
    return [grid for grid in candidates if grid.body]


def _arms_grid(arms: Mapping[Arm, ArmSummary]) -> Grid:
    both = [arms[Arm.AUTO], arms[Arm.THINK]]
    lines = {
        "requests (errors)": [f"{arm.requests} ({arm.errors})" for arm in both],
        "completion tokens, mean": [_number(arm.completion_mean) for arm in both],
        "completion tokens, p95": [_number(arm.completion_p95) for arm in both],
        "reasoning tokens, mean": [_number(arm.reasoning_mean) for arm in both],
        "answer tokens, mean": [_number(arm.answer_mean) for arm in both],
        "decide tokens, mean": [_number(arm.decide_mean) for arm in both],
        "answered in think mode, %": [_percent(arm.think_rate) for arm in both],
        "ended without an answer": [str(arm.without_answer) for arm in both],
        "accuracy, % (checked)": [f"{_percent(arm.accuracy)} ({arm.checked})" for arm in both],
        "first token, p50 / p95 ms": [_two(arm.first_token_ms) for arm in both],
        "first answer token, p50 / p95 ms": [_two(arm.first_answer_ms) for arm in both],
        "total, p50 / p95 ms": [_two(arm.total_ms) for arm in both],
        "ended by": [_counts(arm.ended_by) for arm in both],
        "mode chosen by": [_counts(arm.sources) for arm in both],
    }
    return Grid("Per arm", ["", "auto", "always-think"], [[name, *cells] for name, cells in lines.items()])


def _paired_grid(summary: Summary) -> Grid:
    paired = summary.paired
    difference = paired.accuracy_difference
    body = [
        ["complete pairs (incomplete)", f"{paired.pairs} ({paired.incomplete})"],
        ["completion tokens saved per request", _interval(paired.saved_mean)],
        ["completion tokens saved, %", _interval(paired.saved_pct)],
        ["the same, decide tokens charged, %", _interval(paired.saved_net_pct)],
        ["accuracy, auto minus always-think, points", _interval(difference, 100)],
    ]
    return Grid(f"Paired, with {CONFIDENCE:.0%} bootstrap intervals over prompts", ["", "value"], body)


def _online_grid(summary: Summary) -> Grid:
    online, paired = summary.online, summary.paired
    if not online.pairs:
        return Grid("", [], [])
    body = [
        ["pairs with a server estimate", f"{online.pairs} of {paired.pairs}"],
        ["saved per request there, the server's estimate", _number(online.estimated_mean)],
        ["saved per request there, true paired difference", _number(online.true_mean)],
        ["estimate minus truth", _interval(online.bias)],
        [f"the same, {online.no_think} no-think answers only", _interval(online.no_think_bias)],
    ]
    if online.intervals:
        promised = f"true difference within the server's {_percent(online.confidence)} % interval"
        body.append([promised, f"{online.covered} of {online.intervals}"])
    return Grid("The server's savings estimate against the truth", ["", "value"], body)


def _group_grid(title: str, groups: Sequence[GroupSummary]) -> Grid:
    head = ["", "pairs", "think %", "tokens auto", "tokens think", "accuracy auto %", "accuracy think %"]
    return Grid(title, head, [_group_row(group) for group in groups])


def _group_row(group: GroupSummary) -> list[str]:
    tokens = [_number(group.completion_auto), _number(group.completion_think)]
    accuracy = [_percent(group.accuracy_auto), _percent(group.accuracy_think)]
    return [group.name, str(group.pairs), _percent(group.think_rate), *tokens, *accuracy]


def value_line(summary: Summary) -> str:
    """Return the main figures as ``name=value`` pairs on one line; ``na`` where there is none."""
    auto, think, paired, online = (
        summary.arms[Arm.AUTO],
        summary.arms[Arm.THINK],
        summary.paired,
        summary.online,
    )
    values = {
        "pairs": paired.pairs,
        "errors": auto.errors + think.errors,
        "tokens_auto": auto.completion_mean,
        "tokens_think": think.completion_mean,
        **_bounds("saved_tokens", paired.saved_mean),
        **_bounds("saved_pct", paired.saved_pct),
        "accuracy_auto": auto.accuracy,
        "accuracy_think": think.accuracy,
        "think_rate": auto.think_rate,
        "first_answer_p50_ms_auto": auto.first_answer_ms[0],
        "first_answer_p50_ms_think": think.first_answer_ms[0],
        "total_p95_ms_auto": auto.total_ms[1],
        "total_p95_ms_think": think.total_ms[1],
        "online_pairs": online.pairs,
        "online_saved_tokens": online.estimated_mean,
        "online_bias_tokens": online.bias.value if online.bias else None,
    }
    return " ".join(f"{name}={_value(value)}" for name, value in values.items())


def _bounds(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    if estimate is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _run_lines(run: RunInfo | None) -> list[str]:
    if run is None:
        return []
    known = run.model_dump(exclude_none=True)
    shown = {name: value if isinstance(value, str) else json.dumps(value) for name, value in known.items()}
    return [f"- {name}: {value}" for name, value in shown.items()] + [""]


def _notes() -> list[str]:
    return [
        "- Both arms ask the same prompts with the same seed, sampling and cap, alternating which goes first "
        "(auto, think, think, auto, ...); warm-up requests are not in the rows.",
        "- Both arms run at the same time, so latencies are those of a server that carries the mix of both.",
        "- Completion tokens are reasoning + answer + overhead, as billed; the decide token is counted apart.",
        "- Paired figures use the pairs of which both requests succeeded; the arms' own figures use every success.",
        "- Times are the client's, from sending. An answer is right when it equals the reference up to case, "
        "spacing and a final full stop.",
        "- Where the model chose to think, the server's estimate is 0 by definition; the truth varies around it.",
        "- An interval without width means that the figure did not vary over these prompts, not that it is certain.",
    ]


def _md_row(cells: Sequence[str]) -> str:
    escaped = (" ".join(cell.replace("|", "\\|").split()) for cell in cells)
    return f"| {' | '.join(escaped)} |"


def _number(value: float | None) -> str:
    return _NONE if value is None else f"{value:.1f}"


def _percent(share: float | None) -> str:
    return _NONE if share is None else f"{100 * share:.1f}"


def _two(values: tuple[float | None, float | None]) -> str:
    return f"{_number(values[0])} / {_number(values[1])}"


def _interval(estimate: Estimate | None, factor: float = 1) -> str:
    if estimate is None:
        return _NONE
    return f"{factor * estimate.value:.1f} [{factor * estimate.low:.1f}, {factor * estimate.high:.1f}]"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or _NONE


def _value(value: float | None) -> str:
    if value is None:
        return "na"
    return str(value) if isinstance(value, int) else f"{value:.4g}"
