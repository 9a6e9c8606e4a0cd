"""Means, quantiles and bootstrap intervals, as pure functions of numbers."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A figure with its bootstrap interval at CONFIDENCE."""

    value: float
    low: float
    high: float


def mean(values: Sequence[float]) -> float | None:
    """Return the arithmetic mean, None of nothing."""
    return math.fsum(values) / len(values) if values else None


def quantile(values: Sequence[float], q: float) -> float | None:
    """Return the `q` quantile with linear interpolation between order statistics, None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    place = q * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def ratio_estimate(clusters: Sequence[Sequence[tuple[float, float]]], seed: int = 0) -> Estimate | None:
    """Estimate sum(numerators) / sum(denominators) with a percentile interval over resampled clusters.

    A cluster holds the pairs of one prompt, which are not independent of each other. With denominators
    of 1 this is a mean. None when there is no cluster or the denominators add up to 0.
    """
    totals = [(math.fsum(n for n, _ in cluster), math.fsum(d for _, d in cluster)) for cluster in clusters]
    value = _ratio(totals)
    if value is None:
        return None
    rng = random.Random(seed)
    drawn = (_ratio(rng.choices(totals, k=len(totals))) for _ in range(RESAMPLES))
    resampled = [ratio for ratio in drawn if ratio is not None]
    tail = (1 - CONFIDENCE) / 2
    low, high = quantile(resampled, tail), quantile(resampled, 1 - tail)
    return None if low is None or high is None else Estimate(value, low, high)


def _ratio(totals: Sequence[tuple[float, float]]) -> float | None:
    denominator = math.fsum(d for _, d in totals)
    return math.fsum(n for n, _ in totals) / denominator if denominator else None
