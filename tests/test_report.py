import gzip
import json
import math

import pytest

from lhrm_train.calibration import calibrate, quantile
from lhrm_train.curve import reference_points
from lhrm_train.format import Mode
from lhrm_train.report import (
    baseline_lines,
    better_mode,
    detail_table,
    key_figures,
    key_line,
    overall_table,
    policy_table,
    summarise,
    upper_levels,
)
from lhrm_train.rows import ModeSamples, Row, read_rows, row_log, write_rows


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


def share(right: int, of: int, tokens: int) -> ModeSamples:
    return samples([1] * right + [0] * (of - right), [tokens] * of)


@pytest.mark.parametrize(
    ("right_think", "right_no_think", "of", "margin", "expected"),
    [
        # A lead of exactly the margin is within it, however its floats fall out: 0.8 - 0.6 > 0.2 > 1.0 - 0.8.
        (4, 3, 5, 0.2, Mode.NO_THINK),
        (5, 4, 5, 0.2, Mode.NO_THINK),
        (3, 2, 5, 0.2, Mode.NO_THINK),
        (5, 3, 5, 0.2, Mode.THINK),
        (8, 7, 8, 0.125, Mode.NO_THINK),
        (3, 1, 8, 0.25, Mode.NO_THINK),
        (8, 6, 8, 0.125, Mode.THINK),
        (10, 8, 10, 0.2, Mode.NO_THINK),
        (9, 7, 10, 0.2, Mode.NO_THINK),
        (8, 6, 10, 0.2, Mode.NO_THINK),
        (3, 1, 10, 0.2, Mode.NO_THINK),
        (4, 1, 10, 0.2, Mode.THINK),
        (10, 9, 10, 0.1, Mode.NO_THINK),
        (3, 2, 10, 0.1, Mode.NO_THINK),
    ],
)
def test_a_lead_of_exactly_the_margin_is_no_lead(right_think, right_no_think, of, margin, expected):
    one = row(0.5, share(right_think, of, 30), share(right_no_think, of, 5))
    assert better_mode(one, margin) is expected
    # The same lead the other way round: now thinking is the mode with fewer tokens.
    other = row(0.5, share(right_no_think, of, 5), share(right_think, of, 30))
    assert better_mode(other, margin) is (Mode.NO_THINK if expected is Mode.THINK else Mode.THINK)
    # Report and curve count by the same rule.
    assert summarise([one], margin).hacc_always_think == float(expected is Mode.THINK)
    assert reference_points([one], margin)["oracle"].tokens == (30 if expected is Mode.THINK else 5)


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


def test_calibration_leaves_out_what_has_no_answer():
    held = [row(0.1, samples(RIGHT, LONG), samples(RIGHT, SHORT)) for _ in range(29)]
    one_missing = row(0.1, ModeSamples((1.0, None), (40, None), (None,) * 2, (None,) * 2), samples([1, 1], [10, 99]))
    all_missing = row(0.1, ModeSamples((None,) * 4, (None,) * 4, (None,) * 4, (None,) * 4), samples(RIGHT, SHORT))
    found = calibrate([*held, one_missing, all_missing]).lookup(0.1, 20)
    assert found.n == 30
    # 29 rows of 4 pairs save 27 on average; the one pair of the last row saves 30.
    assert found.saving_mean == round((29 * 4 * 27 + 30) / (29 * 4 + 1), 3)


# Rows that an endpoint without modes gives: think samples only, nothing decided.
PLAIN = Row("all", 0, False, "bare", "k", 0, None, None, samples([1, 0], [8, 4]), ModeSamples())


def test_an_invalid_sample_is_in_no_mean():
    # Two scores of four: the mean is over these two. All four answers have tokens.
    moody = ModeSamples((1.0, None, 0.0, None), (30, 30, 34, 34), (False,) * 4, (False,) * 4)
    one = row(0.9, moody, samples(WRONG, SHORT))
    assert (one.think.score, one.think.mean_tokens, one.invalid) == (0.5, 32.0, 2)
    s = summarise([one], 0.2)
    assert (s.n, s.accuracy_think, s.accuracy_free, s.hacc) == (1, 0.5, 0.5, 1.0)


def test_a_row_with_a_mode_without_a_score_is_left_out_of_every_figure():
    broken = ModeSamples((None, None), (None, None), (None, None), (None, None))
    good = row(0.9, samples(RIGHT, LONG), samples(WRONG, SHORT))
    bad = row(0.1, samples(WRONG, LONG), broken)
    undecided = Row("add", 1, False, "bare", "k", 20, None, None, samples(WRONG, LONG), samples(WRONG, SHORT))
    assert [one.counts for one in (good, bad, undecided)] == [True, False, False]
    assert summarise([good, bad, undecided], 0.2) == summarise([good], 0.2)
    with pytest.raises(ValueError, match="no rows"):
        summarise([bad, undecided], 0.2)
    assert math.isnan(broken.score)
    assert math.isnan(broken.mean_tokens)


def test_a_model_that_always_thinks_has_no_figures_of_choice():
    assert PLAIN.chooses_think
    assert better_mode(PLAIN, 0.2) is Mode.THINK
    s = summarise([PLAIN], 0.2)
    assert (s.accuracy_think, s.accuracy_free, s.tokens_think, s.cut, s.think_rate) == (0.5, 0.5, 6.0, 0.0, 1.0)
    for name in (
        "accuracy_no_think",
        "hacc",
        "hacc_always_think",
        "failing_no_think",
        "no_think_violations",
        "p_think",
    ):
        assert math.isnan(getattr(s, name)), name
    assert "| all | 1 | 0.500 | - | 0.500 | 6.0 | 6.0 | 0.0% | 0.0% | 1.00 | - |" in overall_table([PLAIN], 0.2)
    assert policy_table([PLAIN], 0.2).splitlines()[2:] == ["| always think | 0.500 | 6.0 | 1.00 | - |"]


def test_policies_by_hand():
    rows = [
        row(0.9, samples(RIGHT, LONG), samples(WRONG, SHORT)),  # thinks, should think
        row(0.9, samples(RIGHT, LONG), samples(RIGHT, SHORT)),  # thinks, should not
        row(0.1, samples(WRONG, LONG), samples(WRONG, SHORT)),  # both fail: the shorter mode is better
        row(0.1, samples(RIGHT, LONG), samples(WRONG, SHORT)),  # direct, should think
    ]
    assert policy_table(rows, 0.2).splitlines()[2:] == [
        "| always no-think | 0.250 | 5.0 | 0.00 | 0.500 |",
        "| random | 0.500 | 18.5 | 0.50 | 0.500 |",
        "| free choice | 0.500 | 18.5 | 0.50 | 0.500 |",
        "| oracle | 0.750 | 18.5 | 0.50 | 1.000 |",
        "| always think | 0.750 | 32.0 | 1.00 | 0.500 |",
    ]


def test_what_a_server_does_not_tell_is_no_violation_and_no_clean_bill():
    unknown = ModeSamples((1.0, 1.0), (4, 4), (None, None), (False, True))
    s = summarise([row(0.1, samples(RIGHT, LONG), unknown)], 0.2)
    assert s.no_think_violations == 1.0  # of the one sample of which anything is known
    unknown = ModeSamples((1.0, 1.0), (4, 4), (None, None), (False, False))
    assert math.isnan(summarise([row(0.1, samples(RIGHT, LONG), unknown)], 0.2).no_think_violations)


def test_data_without_levels_has_no_line_and_no_figure_for_them():
    rows = [row(0.9, samples(RIGHT, LONG), samples(WRONG, SHORT), level=0)]
    assert "hacc_levels_2_up" not in key_figures(rows, 0.2)
    assert len(baseline_lines(rows, 0.2).splitlines()) == 3
    assert detail_table(rows, 0.2).splitlines()[2].startswith("| add | 1 |")
    assert key_line({"a": 1, "b": 0.5}) == "a=1 b=0.5"


def test_a_bar_in_a_kind_does_not_break_the_table():
    odd = Row("a|b", 3, False, "bare", "k", 9, 0.9, 1.0, samples(RIGHT, LONG), samples(WRONG, SHORT))
    header, _, line = detail_table([odd], 0.2).splitlines()
    assert line.startswith("| a/b 3 |")
    assert line.count("|") == header.count("|")


OLD_ROW = (
    '{"kind":"add","level":1,"closed":true,"context":"bare","key":"add 1 2","prompt_tokens":15,"p_think":0.25,'
    '"mass":0.999,"think":{"scores":[1.0,0.0],"tokens":[12,13],"leaked":[false,true],"overlong":[false,false]},'
    '"no_think":{"scores":[1.0,1.0],"tokens":[3,3],"leaked":[false,false],"overlong":[false,false]}}'
)


def test_rows_from_before_the_newer_fields_are_still_read(tmp_path, nano_dir):
    (tmp_path / "old.jsonl.gz").write_bytes(gzip.compress((OLD_ROW + "\n").encode()))
    old = read_rows(tmp_path / "old.jsonl.gz")[0]
    assert (old.index, old.error, old.think.truncated, old.think.leak_words) == (-1, "", (), ())
    assert (old.think.score, old.think.leaked, old.counts, old.invalid) == (0.5, (False, True), True, 0)
    shipped = read_rows(nano_dir / "evaluation" / "test.jsonl.gz")
    assert len(shipped) >= 2000
    assert all(one.counts and not one.invalid for one in shipped)


def test_an_invalid_score_is_null_on_the_disk(tmp_path):
    broken = ModeSamples((None, 0.5), (None, 7), (None, False), (None, False), (None, True), (None, 2))
    one = Row("add", 1, False, "bare", "k", 20, None, None, broken, ModeSamples(), 4, "no answer")
    log = row_log(tmp_path / "deep" / "rows.jsonl")
    log.append([one])
    raw = json.loads(log.path.read_text())
    assert (raw["think"]["scores"], raw["think"]["tokens"], raw["p_think"]) == ([None, 0.5], [None, 7], None)
    assert log.read() == [one]
    write_rows(tmp_path / "rows.jsonl.gz", [one])
    assert read_rows(tmp_path / "rows.jsonl.gz") == [one]


def test_a_log_keeps_its_whole_lines_after_a_kill(tmp_path):
    rows = [row(p, samples(RIGHT, LONG), samples(WRONG, SHORT)) for p in (0.1, 0.2, 0.3)]
    log = row_log(tmp_path / "rows.jsonl")
    assert log.read() == []
    log.append(rows[:2])
    log.append(rows[2:])
    whole = log.path.read_bytes()
    log.path.write_bytes(whole[:-1])  # all of the row but its line end: it may be half a number
    assert log.read() == rows[:2]
    log.keep(rows[:2])
    assert log.path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:2])
    stamp = log.path.stat().st_mtime_ns
    log.keep(rows[:2])
    assert log.path.stat().st_mtime_ns == stamp
    assert [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]
