import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lhrm_train.curve import curve, curve_table, reference_points
from lhrm_train.intervals import bootstrap, interval_table, intervals
from lhrm_train.plots import plot_curve, plot_difficulty
from lhrm_train.report import summarise
from lhrm_train.rows import ModeSamples, Row


def samples(score, tokens):
    return ModeSamples((score,), (tokens,), (False,), (False,))


def row(p, think, no_think, think_tokens=30, no_think_tokens=10, kind="add", level=1):
    return Row(
        kind, level, False, "bare", "k", 20, p, 1.0, samples(think, think_tokens), samples(no_think, no_think_tokens)
    )


PLAIN = Row("all", 0, False, "bare", "k", 0, None, None, samples(1.0, 8), ModeSamples())
# Thinking helps on the two that the model wants to think about, and costs on the others.
ROWS = [row(0.2, 0.0, 1.0, 50, 10), row(0.8, 1.0, 0.0, 30, 10), row(0.8, 1.0, 0.0, 40, 20), row(0.1, 1.0, 1.0, 20, 0)]


def test_curve_by_hand():
    found = [(p.threshold, p.think_rate, p.accuracy, p.tokens) for p in curve(ROWS)]
    assert found == [
        (math.inf, 0.0, 0.5, 10.0),  # (1 + 0 + 0 + 1) / 4, (10 + 10 + 20 + 0) / 4
        (0.8, 0.5, 1.0, 20.0),  # both rows at .8 cross together: (10 + 30 + 40 + 0) / 4
        (0.2, 0.75, 0.75, 30.0),  # (50 + 30 + 40 + 0) / 4
        (0.1, 1.0, 0.75, 35.0),
    ]


def test_reference_points_by_hand():
    found = {name: (p.accuracy, p.tokens, p.think_rate) for name, p in reference_points(ROWS, 0.2).items()}
    assert found == {
        "always no-think": (0.5, 10.0, 0.0),
        "always think": (0.75, 35.0, 1.0),
        "random": (0.625, 22.5, 0.5),
        "free choice": (1.0, 20.0, 0.5),
        "oracle": (1.0, 20.0, 0.5),
    }


def test_without_a_choice_there_is_no_curve():
    assert curve([PLAIN]) == []
    assert curve([]) == []
    assert reference_points([PLAIN], 0.2) == {}
    invalid = Row("all", 0, False, "bare", "k", 0, 0.5, 1.0, samples(None, None), samples(1.0, 4))
    assert curve([*ROWS, invalid, PLAIN]) == curve(ROWS)


rows_of_choice = st.lists(
    st.builds(
        row,
        st.sampled_from([0.0, 0.1, 0.5, 0.500001, 0.9, 1.0]),
        st.sampled_from([0.0, 0.25, 1.0]),
        st.sampled_from([0.0, 0.25, 1.0]),
        st.integers(1, 90),
        st.integers(1, 90),
    ),
    min_size=1,
    max_size=12,
)


@given(rows_of_choice)
def test_every_point_is_what_its_threshold_gives(rows):
    points = curve(rows)
    assert len(points) == len({one.p_think for one in rows}) + 1
    for point in points:
        chosen = [one.think if one.p_think >= point.threshold else one.no_think for one in rows]
        assert point.accuracy == pytest.approx(sum(one.score for one in chosen) / len(rows))
        assert point.tokens == pytest.approx(sum(one.mean_tokens for one in chosen) / len(rows))
        assert point.think_rate == sum(one.p_think >= point.threshold for one in rows) / len(rows)
    s = summarise(rows, 0.2)
    assert (points[0].tokens, points[-1].tokens) == (pytest.approx(s.tokens_no_think), pytest.approx(s.tokens_think))


def test_the_table_spreads_over_the_think_rate():
    rows = [row(i / 1000, 1.0, 0.0) for i in range(1000)]
    lines = curve_table(curve(rows)).splitlines()[2:]
    assert [line.split("|")[2].strip() for line in lines] == [f"{i / 10:.2f}" for i in range(11)]
    assert lines[0].startswith("| never | 0.00 | 0.000 | 10.0 |")
    assert len(curve_table(curve(ROWS)).splitlines()[2:]) == 4  # no point twice


def test_the_bootstrap_of_constants_has_no_width():
    found = intervals([row(0.9, 1.0, 0.25, 40, 10)] * 50, 0.2, 200)
    for name, value in {"accuracy always think": 1.0, "accuracy always no-think": 0.25, "Hybrid Accuracy": 1.0}.items():
        one = found[name]
        assert (one.value, one.low, one.high) == (value, pytest.approx(value), pytest.approx(value))
    assert "| accuracy always no-think | 0.250 [0.250, 0.250] |" in interval_table(found, 0.95)
    assert "| tokens always think | 40.0 [40.0, 40.0] |" in interval_table(found, 0.95)


def test_the_interval_of_a_share_has_the_known_width():
    # 400 coins: 1.96 sqrt(.5 * .5 / 400) = .049 to each side.
    rows = [row(0.9, float(i % 2), 0.0) for i in range(400)]
    one = intervals(rows, 0.2, 2000)["accuracy always think"]
    assert one.value == 0.5
    assert one.low == pytest.approx(0.451, abs=0.006)
    assert one.high == pytest.approx(0.549, abs=0.006)
    assert intervals(rows, 0.2, 2000)["accuracy always think"] == one  # seeded
    narrow = intervals(rows, 0.2, 2000, confidence=0.5)["accuracy always think"]
    assert one.low < narrow.low < narrow.high < one.high


def test_differences_and_ratios_are_paired():
    # The free choice is always-think on every prompt, so their difference has no spread although each side has.
    rows = [row(0.9, float(i % 2), 0.0, 30 + i % 7) for i in range(100)]
    found = intervals(rows, 0.2, 300)
    difference = found["free choice minus always think"]
    assert (difference.value, difference.low, difference.high) == (0.0, 0.0, 0.0)
    cut = found["token cut"]
    assert (cut.value, cut.low, cut.high) == (0.0, 0.0, 0.0)
    assert found["accuracy always think"].low < 0.5 < found["accuracy always think"].high
    assert found["tokens always think"].low < found["tokens always think"].high
    # A quarter of the prompts is answered with 10 tokens instead of 40: the cut is 1 - (3 * 40 + 10) / 160.
    quarter = [row(0.1 if i % 4 == 0 else 0.9, 1.0, 1.0, 40, 10) for i in range(100)]
    cut = intervals(quarter, 0.2, 300)["token cut"]
    assert cut.value == pytest.approx(30 / 160)
    assert cut.low < cut.value < cut.high


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(7)
    covered = 0
    for trial in range(200):
        values = (rng.random((100, 1)) < 0.7).astype(float)
        low, high = np.quantile(bootstrap(values, 300, trial), [0.05, 0.95])
        covered += low <= 0.7 <= high
    assert 0.83 <= covered / 200 <= 0.96  # 90 % nominal, sd .021


def test_the_bootstrap_draws_blocks_of_any_number():
    values = np.arange(10.0).reshape(5, 2)
    drawn = bootstrap(values, 257, 3)
    assert drawn.shape == (257, 2)
    assert np.allclose(drawn[:, 1] - drawn[:, 0], 1.0)  # columns keep their rows
    assert drawn.min() >= 0
    assert drawn.max() <= 9
    assert len(np.unique(drawn[:, 0])) > 5


@pytest.mark.parametrize(("resamples", "confidence"), [(0, 0.95), (10, 0.0), (10, 1.0)])
def test_impossible_settings_are_named(resamples, confidence):
    with pytest.raises(ValueError, match=f"resamples = {resamples}, confidence = {confidence}"):
        intervals(ROWS, 0.2, resamples, confidence)


def test_figures_without_a_measurement_are_not_in_the_table():
    found = intervals([PLAIN] * 3, 0.2, 20)
    assert math.isnan(found["Hybrid Accuracy"].value)
    table = interval_table(found, 0.9)
    assert "[90 % interval]" in table
    assert "always think | 1.000 [1.000, 1.000]" in table
    assert "Hybrid" not in table
    assert "no-think" not in table
    with pytest.raises(ValueError, match="no rows"):
        intervals([], 0.2)


@settings(max_examples=25)
@given(rows_of_choice)
def test_the_interval_brackets_the_figure_or_its_neighbourhood(rows):
    for name, one in intervals(rows, 0.2, 50, seed=1).items():
        assert one.low <= one.high, name
        if name.startswith(("accuracy", "Hybrid", "think")):
            assert one.low >= -1e-9
            assert one.high <= 1 + 1e-9


def image_size(path):
    header = path.read_bytes()[:24]
    assert header.startswith(b"\x89PNG")
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")


def test_plots_of_any_shape(tmp_path):
    plot_curve(curve(ROWS), reference_points(ROWS, 0.2), tmp_path / "new" / "curve.png")
    assert image_size(tmp_path / "new" / "curve.png")[0] > 600
    levels = [row(0.9, 1.0, 0.0, kind=f"k{i}", level=level) for i in range(6) for level in (1, 2, 10)]
    flat = [row(0.9, 1.0, 0.0, kind=f"${i}$ a very long name of a kind", level=0) for i in range(3)]
    plot_difficulty(levels, 0.2, tmp_path / "levels.png")
    plot_difficulty(flat, 0.2, tmp_path / "flat.png")
    plot_difficulty([PLAIN], 0.2, tmp_path / "plain.png")
    wide, tall = image_size(tmp_path / "levels.png")
    assert wide > 1500
    assert tall > 500  # six kinds: two lines of panels
    assert image_size(tmp_path / "flat.png")[0] < 1000
    assert image_size(tmp_path / "plain.png")[0] < 1000
    with pytest.raises(ValueError, match="no curve"):
        plot_curve([], {}, tmp_path / "none.png")
    with pytest.raises(ValueError, match="no rows"):
        plot_difficulty([], 0.2, tmp_path / "none.png")
