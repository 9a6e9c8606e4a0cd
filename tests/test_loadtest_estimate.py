"""The load test's means, quantiles and intervals against numbers made by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lhrm_loadtest.estimate import Estimate, mean, quantile, ratio_estimate


@pytest.mark.parametrize(
    ("values", "q", "expected"),
    [([], 0.5, None), ([3], 0.95, 3), ([1, 2], 0.5, 1.5), ([4, 1, 3, 2], 0.5, 2.5), ([1, 2, 3], 1.0, 3)],
)
def test_quantile(values, q, expected):
    assert quantile(values, q) == expected


def test_mean_of_nothing_is_none():
    assert mean([]) is None
    assert mean([1, 2]) == 1.5


def test_ratio_estimate_by_hand():
    assert ratio_estimate([]) is None
    assert ratio_estimate([[(1, 0)]]) is None
    assert ratio_estimate([[(1, 2), (3, 4)]]) == Estimate(4 / 6, 4 / 6, 4 / 6)
    # Two equal-sized clusters: the mean of two draws is 0, 1/2 or 1 with probabilities 1/4, 1/2, 1/4.
    assert ratio_estimate([[(0, 1)], [(1, 1)]]) == Estimate(0.5, 0, 1)


def test_a_resample_without_a_denominator_is_left_out():
    # Drawn twice, the first cluster has none: 1/4 of the resamples do not count, the others are 3 / 1 or 6 / 2.
    assert ratio_estimate([[(0, 0)], [(3, 1)]]) == Estimate(3, 3, 3)


def test_the_same_numbers_have_the_same_interval():
    clusters = [[(float(i), 1.0)] for i in range(20)]
    assert ratio_estimate(clusters) == ratio_estimate(clusters)
    assert ratio_estimate(clusters, seed=1) != ratio_estimate(clusters)


def test_interval_narrows_as_the_normal_one_does():
    clusters = [[(float(i % 2), 1.0)] for i in range(400)]
    estimate = ratio_estimate(clusters)
    assert estimate.value == 0.5
    assert estimate.low == pytest.approx(0.5 - 1.96 * 0.5 / 20, abs=0.006)
    assert estimate.high == pytest.approx(0.5 + 1.96 * 0.5 / 20, abs=0.006)


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(1, 50)), min_size=1, max_size=6))
def test_interval_stays_within_the_extreme_ratios(pairs):
    estimate = ratio_estimate([[pair] for pair in pairs])
    ratios = [n / d for n, d in pairs]
    assert min(ratios) - 1e-9 <= estimate.low <= estimate.high <= max(ratios) + 1e-9
