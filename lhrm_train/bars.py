"""What a model is held against: each bar beside what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lhrm_train.report import markdown, shown

# Differences of means may miss a bar by a rounding error.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Bar:
    """One bar. `met` is None where the figure only stands beside one; a figure that was not measured meets none."""

    what: str
    measured_on: str
    required: str
    measured: str
    met: bool | None


def at_least(value: float, bar: float) -> bool:
    """Return whether `value` reaches `bar`; NaN does not."""
    return value >= bar - TOLERANCE


def at_most(value: float, bar: float) -> bool:
    """Return whether `value` stays within `bar`; NaN does not."""
    return value <= bar + TOLERANCE


def points(share: float) -> str:
    """Return a difference of shares in points, with its sign."""
    return f"{shown(100 * share, '+.2f')} points"


def bar_table(found: Sequence[Bar]) -> str:
    """Return the bars as a Markdown table, and how many are met."""
    lines = [[one.what, one.measured_on, one.required, one.measured, _answer(one.met)] for one in found]
    counts = [one.met for one in found if one.met is not None]
    table = markdown(["bar", "measured on", "required", "measured", "met"], lines)
    return f"{table}\n\n{sum(counts)} of {len(counts)} bars are met."


def _answer(met: bool | None) -> str:
    return "-" if met is None else "yes" if met else "**no**"
