"""Means, quantiles and bootstrap intervals, as pure functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
CONFIDENCE = 0.95
_TOGETHER = 250  # resamples drawn at once: bounds the memory at that many times the clusters


@dataclass(frozen=True)
class Estimate:
    """A figure with its bootstrap interval at CONFIDENCE."""

    value: float
    low: float
    high: float

    def times(self, factor: float) -> Estimate:
        """Return the estimate in another unit; `factor` is positive."""
        return Estimate(factor * self.value, factor * self.low, factor * self.high)


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

    A cluster holds the (numerator, denominator) pairs of one prompt, which are not independent of each other. With
    denominators of 1 this is a mean. None when there is no cluster or the denominators add up to 0.
    """
    totals = [(math.fsum(n for n, _ in cluster), math.fsum(d for _, d in cluster)) for cluster in clusters]
    denominator = math.fsum(d for _, d in totals)
    if not denominator:
        return None
    value = math.fsum(n for n, _ in totals) / denominator
    # Shape (R, 2): numerator and denominator of each resample.
    sums = _resampled_sums(np.array(totals), np.random.default_rng(seed))
    kept = sums[sums[:, 1] != 0]
    if not len(kept):
        return None
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(kept[:, 0] / kept[:, 1], [tail, 1 - tail])
    return Estimate(value, float(low), float(high))


def _resampled_sums(totals: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the two sums of RESAMPLES resamples, shape (R, 2), of totals of shape (clusters, 2).

    A resample takes as many clusters as there are, with replacement.
    """
    clusters = len(totals)
    shares = np.full(clusters, 1 / clusters)
    drawn = [rng.multinomial(clusters, shares, size=_TOGETHER) @ totals for _ in range(RESAMPLES // _TOGETHER)]
    return np.concatenate(drawn)
