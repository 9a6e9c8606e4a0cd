"""The accuracy-cost curve: what every threshold on P(think) would give, from one set of rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lhrm_train.report import markdown, summarise
from lhrm_train.rows import Row

TABLE_LINES = 11


@dataclass(frozen=True)
class Point:
    """Mean score and mean completion tokens of one policy, and the share of prompts on which it thinks."""

    accuracy: float
    tokens: float
    think_rate: float


@dataclass(frozen=True)
class ThresholdPoint(Point):
    """The policy that thinks iff P(think) >= `threshold`; infinity never thinks."""

    threshold: float


def deciding(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that count and have a choice to make."""
    return [row for row in rows if row.counts and row.decides]


def curve(rows: Sequence[Row]) -> list[ThresholdPoint]:
    """Return one point per distinct P(think), from never thinking to always thinking.

    Rows without a choice are left out; without any row the curve is empty.
    """
    mine = sorted(deciding(rows), key=lambda row: -(row.p_think or 0.0))
    if not mine:
        return []
    p_R = np.array([row.p_think for row in mine], dtype=np.float64)

    def totals(think: list[float], no_think: list[float]) -> list[float]:
        """Return the mean when the first k rows think, for k = 0 to all."""
        gain_R = np.array(think) - np.array(no_think)
        return [float(total) / len(mine) for total in sum(no_think) + np.concatenate([[0.0], np.cumsum(gain_R)])]

    accuracy = totals([row.think.score for row in mine], [row.no_think.score for row in mine])
    tokens = totals([row.think.mean_tokens for row in mine], [row.no_think.mean_tokens for row in mine])
    # Rows with the same P(think) cross the threshold together.
    ends = [k for k in range(1, len(mine) + 1) if k == len(mine) or p_R[k] != p_R[k - 1]]
    return [
        ThresholdPoint(accuracy[k], tokens[k], k / len(mine), float(p_R[k - 1]) if k else math.inf) for k in [0, *ends]
    ]


def reference_points(rows: Sequence[Row], margin: float) -> dict[str, Point]:
    """Return the policies to hold the curve against; empty when no row has a choice to make.

    The oracle takes the better mode (see `better_mode`) of every prompt.
    """
    mine = deciding(rows)
    if not mine:
        return {}
    s = summarise(mine, margin)
    return {
        "always no-think": Point(s.accuracy_no_think, s.tokens_no_think, 0.0),
        "always think": Point(s.accuracy_think, s.tokens_think, 1.0),
        "random": Point(s.accuracy_random, s.tokens_random, 0.5),
        "free choice": Point(s.accuracy_free, s.tokens_free, s.think_rate),
        "oracle": Point(s.accuracy_oracle, s.tokens_oracle, s.hacc_always_think),
    }


def curve_table(points: Sequence[ThresholdPoint]) -> str:
    """Return up to 11 points of the curve as Markdown, evenly spread over the think rate."""
    wanted = [i / (TABLE_LINES - 1) for i in range(TABLE_LINES)]
    nearest = {min(range(len(points)), key=lambda k: abs(points[k].think_rate - rate)) for rate in wanted}
    lines = [
        [
            "never" if math.isinf(point.threshold) else f"{point.threshold:.4g}",
            f"{point.think_rate:.2f}",
            f"{point.accuracy:.3f}",
            f"{point.tokens:.1f}",
        ]
        for point in (points[k] for k in sorted(nearest))
    ]
    return markdown(["think iff P(think) >=", "think rate", "accuracy", "tokens"], lines)
