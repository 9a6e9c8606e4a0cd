"""The savings calibration: what no-think saves on prompts that the model itself sends to no_think."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from lhrm_train.format import SavingsBin, SavingsCalibration
from lhrm_train.rows import Row

P_EDGES = (0.0, 0.05, 0.2, 0.5)
LENGTH_EDGES = (0, 16, 20, 26, 36, 64, 1 << 30)
CONFIDENCE = 0.9
MIN_PROMPTS = 30


def quantile(values: Sequence[float], share: float) -> float:
    """Return the linearly interpolated quantile of `values`, which must not be empty."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def _paired(row: Row) -> bool:
    pairs = zip(row.think.tokens, row.no_think.tokens, strict=True)
    return any(think is not None and no_think is not None for think, no_think in pairs)


def _bin(rows: Sequence[Row], p_range: tuple[float, float], lengths: tuple[int, int]) -> SavingsBin:
    think = [float(t) for row in rows for t in row.think.tokens if t is not None]
    no_think = [float(t) for row in rows for t in row.no_think.tokens if t is not None]
    pairs = [pair for row in rows for pair in zip(row.think.tokens, row.no_think.tokens, strict=True)]
    saving = [float(t - y) for t, y in pairs if t is not None and y is not None]
    tail = (1 - CONFIDENCE) / 2
    return SavingsBin(
        p_think=p_range,
        prompt_tokens=lengths,
        n=len(rows),
        think_mean=round(sum(think) / len(think), 3),
        think_low=round(quantile(think, tail), 1),
        think_high=round(quantile(think, 1 - tail), 1),
        no_think_mean=round(sum(no_think) / len(no_think), 3),
        saving_mean=round(sum(saving) / len(saving), 3),
        saving_low=round(quantile(saving, tail), 1),
        saving_high=round(quantile(saving, 1 - tail), 1),
    )


def _length_ranges(rows: Sequence[Row]) -> list[tuple[int, int]]:
    """Merge neighbouring length ranges until each holds MIN_PROMPTS rows."""
    ranges: list[tuple[int, int]] = []
    start = LENGTH_EDGES[0]
    for edge in LENGTH_EDGES[1:]:
        held = sum(start <= row.prompt_tokens < edge for row in rows)
        if held >= MIN_PROMPTS:
            ranges.append((start, edge))
            start = edge
    if ranges and start != LENGTH_EDGES[-1]:
        ranges[-1] = (ranges[-1][0], LENGTH_EDGES[-1])
    return ranges


def calibrate(rows: Sequence[Row]) -> SavingsCalibration | None:
    """Bin the paired token counts of no_think prompts by P(think) and prompt length.

    Rows that lack an answer in one mode are left out. Bins under MIN_PROMPTS are merged or left out; None when
    no bin is large enough.
    """
    mine = [row for row in rows if not row.chooses_think and _paired(row)]
    bins = []
    for low, high in itertools.pairwise(P_EDGES):
        part = [row for row in mine if row.p_think is not None and low <= row.p_think < high]
        for first, last in _length_ranges(part):
            held = [row for row in part if first <= row.prompt_tokens < last]
            bins.append(_bin(held, (low, high), (first, last)))
    return SavingsCalibration(confidence=CONFIDENCE, prompts=len(mine), bins=tuple(bins)) if bins else None
