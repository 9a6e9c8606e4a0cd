import pytest

from lhrm_train.calibration import calibrate, quantile
from lhrm_train.evaluate import ModeSamples, Row, read_rows, write_rows
from lhrm_train.format import Mode
from lhrm_train.report import better_mode, key_figures, summarise, upper_levels


def samples(scores, tokens, bad=False):
    n = len(scores)
    return ModeSamples(tuple(map(float, scores)), tuple(tokens), (bad,) * n, (False,) * n)


def row(p, think, no_think, level=1, prompt_tokens=20):
    return Row("add", level, False, "bare", f"k{p}{level}", prompt_tokens, p, 1.0, think, no_think)


RIGHT, WRONG = [1, 1, 1, 1], [0, 0, 0, 0]
LONG, SHORT = [30, 30, 34, 34], [4, 4, 6, 6]


@pytest.mark.parametrize(
    ("think", "no_think", "expected"),
    [
        (samples(RIGHT, LONG), samples(WRONG, SHORT), Mode.THINK),
        (samples(WRONG, LONG), samples(RIGHT, SHORT), Mode.NO_THINK),
        (samples(RIGHT, LONG), samples(RIGHT, SHORT), Mode.NO_THINK),  # tie: the shorter mode
        (samples(RIGHT, SHORT), samples(RIGHT, LONG), Mode.THINK),
        (samples(RIGHT, LONG), samples([1, 1, 1, 0], SHORT), Mode.THINK),  # .25 is beyond the margin
        (samples([1, 1, 1, 1, 1, 1, 1, 1], [30] * 8), samples([1, 1, 1, 1, 1, 1, 1, 0], [5] * 8), Mode.NO_THINK),
    ],
)
def test_better_mode(think, no_think, expected):
    assert better_mode(row(0.5, think, no_think), 0.2) is expected


def test_summary_by_hand():
    rows = [
        row(0.9, samples(RIGHT, LONG), samples(WRONG, SHORT)),  # thinks, should think
        row(0.1, samples(RIGHT, LONG), samples(RIGHT, SHORT, bad=True)),  # direct, should be direct
        row(0.5, samples(RIGHT, LONG), samples(RIGHT, SHORT)),  # thinks at exactly .5, should not
        row(0.2, samples(RIGHT, LONG), samples(WRONG, SHORT), level=2),  # direct, should think
    ]
    s = summarise(rows, 0.2)
    assert (s.accuracy_think, s.accuracy_no_think, s.accuracy_free, s.accuracy_oracle) == (1.0, 0.5, 0.75, 1.0)
    assert (s.tokens_think, s.tokens_no_think) == (32, 5)
    assert s.tokens_free == (32 + 5 + 32 + 5) / 4
    assert s.tokens_oracle == (32 + 5 + 5 + 32) / 4
    assert s.cut == pytest.approx(1 - 18.5 / 32)
    assert (s.think_rate, s.hacc, s.hacc_always_think, s.hacc_always_no_think) == (0.5, 0.5, 0.5, 0.5)
    assert (s.failing_no_think, s.no_think_violations) == (0.5, 0.25)
    assert key_figures(rows, 0.2)["hacc_levels_2_up"] == 0.0
    assert len(upper_levels(rows)) == 1


def test_no_rows_is_an_error():
    with pytest.raises(ValueError, match="no rows"):
        summarise([], 0.2)


def test_rows_round_trip(tmp_path):
    rows = [row(0.9, samples(RIGHT, LONG), samples(WRONG, SHORT))]
    write_rows(tmp_path / "rows.jsonl.gz", rows)
    first = (tmp_path / "rows.jsonl.gz").read_bytes()
    assert read_rows(tmp_path / "rows.jsonl.gz") == rows
    write_rows(tmp_path / "rows.jsonl.gz", rows)
    assert (tmp_path / "rows.jsonl.gz").read_bytes() == first


def test_quantile_interpolates():
    assert quantile([4.0, 1.0, 3.0, 2.0], 0.5) == 2.5
    assert quantile([1.0, 2.0], 1.0) == 2.0
    assert quantile([5.0], 0.05) == 5.0


def test_calibration_uses_only_what_the_model_sends_to_no_think():
    direct = [row(0.1, samples(RIGHT, LONG), samples(RIGHT, SHORT)) for _ in range(30)]
    thinking = [row(0.9, samples(RIGHT, [90] * 4), samples(RIGHT, SHORT)) for _ in range(30)]
    calibration = calibrate(direct + thinking)
    found = calibration.lookup(0.1, 20)
    assert (calibration.prompts, found.n) == (30, 30)
    assert (found.think_mean, found.no_think_mean, found.saving_mean) == (32.0, 5.0, 27.0)
    assert calibration.lookup(0.9, 20) is None


def test_calibration_drops_cells_that_are_too_small():
    assert calibrate([row(0.1, samples(RIGHT, LONG), samples(RIGHT, SHORT))] * 29) is None
