"""Write the report of a run: report.md with its plots, and report.html that holds everything in one file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .caveats import caveats
from .figures import Price
from .grids import Grid, grids
from .order import order_sentence, turns
from .page import page
from .plots import Plot, plots
from .rows import Row, last_rows, read_history
from .run_info import RunInfo, read_run
from .slo import Slo, parse_slo
from .summary import Summary, summarise
from .values import value_line

REPORT_NAME, PAGE_NAME, PLOTS_NAME = "report.md", "report.html", "plots"
TITLE = "Adaptive thinking against always-think"


@dataclass(frozen=True)
class Report:
    """The rows of a run with how they are read: the baseline, the objectives and the price.

    `remade` counts the requests that a later session made again.
    """

    rows: Sequence[Row]
    run: RunInfo | None
    slos: Sequence[Slo]
    summary: Summary
    remade: int = 0

    @property
    def caveats(self) -> list[str]:
        """Return what a reader must know before any figure."""
        return caveats(self.rows, self.run, self.summary, self.remade)


def read_report(directory: Path, slos: Sequence[str] = (), price: Price | None = None) -> Report:
    """Compute the report of a run. What is not given is taken from how the run was made. Raises LoadTestError."""
    history, run = read_history(directory), read_run(directory)
    rows = last_rows(history)
    chosen = [parse_slo(text) for text in slos]
    if run is not None:
        chosen = chosen or run.settings.objectives
        price = price or run.settings.price
    baseline = run.settings.baseline if run is not None else None
    planned = [arm.name for arm in run.settings.arms] if run is not None else []
    return Report(rows, run, chosen, summarise(rows, baseline, chosen, price, planned), len(history) - len(rows))


def write_report(directory: Path, report: Report) -> None:
    """Write report.md, report.html and the plots beside the rows."""
    drawn = plots(report.rows, report.summary, report.slos)
    folder = directory / PLOTS_NAME
    folder.mkdir(exist_ok=True)
    for plot in drawn:
        (folder / plot.name).write_bytes(plot.png)
    (directory / REPORT_NAME).write_text(markdown(report, drawn), encoding="utf-8")
    tables, line = grids(report.summary), value_line(report.summary)
    text = page(TITLE, run_lines(report.run), tables, drawn, notes(report), line, report.caveats)
    (directory / PAGE_NAME).write_text(text, encoding="utf-8")


def markdown(report: Report, drawn: Sequence[Plot]) -> str:
    """Return the report as Markdown, with its plots as files of a folder beside it."""
    parts = [f"# {TITLE}", ""]
    for caveat in report.caveats:
        parts += [f"> **Warning:** {caveat}", ""]
    parts += [*(f"- {name}: {value}" for name, value in run_lines(report.run)), ""]
    for plot in drawn:
        parts += [f"![{plot.caption}]({PLOTS_NAME}/{plot.name})", "", plot.caption, ""]
    for grid in grids(report.summary):
        parts += [f"## {grid.title}", "", _md_row(grid.head), _md_row(["---"] * len(grid.head))]
        parts += [*map(_md_row, grid.body), ""]
    parts += ["## How to read this", "", *(f"- {note}" for note in notes(report)), ""]
    return "\n".join([*parts, "```", value_line(report.summary), "```", ""])


def print_tables(summary: Summary, console: Console) -> None:
    """Print the tables on the terminal."""
    for grid in grids(summary):
        print_grid(grid, console)


def print_grid(grid: Grid, console: Console) -> None:
    """Print one table on the terminal."""
    table = Table(*map(escape, grid.head), title=escape(grid.title), title_justify="left")
    for row in grid.body:
        table.add_row(*map(escape, row))
    console.print(table)


def run_lines(run: RunInfo | None) -> list[tuple[str, str]]:
    """Return how the run was made, as names and values; nothing where that is not known."""
    if run is None:
        return []
    settings = run.settings.model_dump(exclude_none=True, exclude_defaults=True)
    known = {**run.model_dump(exclude_none=True, exclude_defaults=True, exclude={"settings"}), **settings}
    return [(name, value if isinstance(value, str) else json.dumps(value)) for name, value in known.items()]


def notes(report: Report) -> list[str]:
    """Return what a reader must know about the figures."""
    mixed = {(row.block, row.arm) for row in report.rows}
    together = len(mixed) > len({block for block, _ in mixed})
    lines = [
        "All arms ask the same prompts with the same seed, sampling and cap. "
        f"{report.summary.warmups} warm-up requests are not counted.",
        *filter(None, [order_sentence(turns(report.rows))]),
        "The arms run at the same time, so latencies and goodput are those of a server that carries them all."
        if together
        else "Each arm has the server for itself while it is measured.",
        "Completion tokens are reasoning + answer + overhead, as billed; the decide token is counted apart.",
        "Paired figures use the pairs of which both requests succeeded; an arm's own figures use every success. "
        "An interval tells what other prompts of the same kind could give; one without width means that the figure did "
        "not vary over these prompts, not that it is certain.",
        "Times are the client's, from the scheduled arrival: in an open loop that is when the request was due, however "
        "late it could be sent; in a closed loop it is when it was sent. A closed loop waits for slow answers, so its "
        "percentiles are those of that many users, not of arriving traffic.",
        "Throughput and goodput are counted while the load is full: from the first measured request of a block to the "
        "last one's start. Goodput is requests within the SLO per second; errors and missing answers are outside it. "
        "The best goodput may be at a load that leaves many requests behind, so it is also given for the loads at "
        "which 90 % of the requests are within the SLO.",
        "The knee is the load with the most throughput per mean duration (Kleinrock's power).",
        "The oracle and the curve choose afterwards between the think and the no-think reply of each pair. Of one "
        "reply per mode, the oracle also profits from luck.",
        "Where the model chose to think, the server's estimate is 0 by definition; the truth varies around it.",
    ]
    return lines


def _md_row(cells: Sequence[str]) -> str:
    escaped = (" ".join(cell.replace("|", "\\|").split()) for cell in cells)
    return f"| {' | '.join(escaped)} |"
