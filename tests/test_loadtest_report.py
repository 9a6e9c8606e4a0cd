"""The load test's statistics against hand-computed numbers, and the report that is made of rows alone."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lhrm_client import Accounting, Latency, Savings, Usage
from lhrm_loadtest.__main__ import main
from lhrm_loadtest.estimate import Estimate, mean, quantile, ratio_estimate
from lhrm_loadtest.report import markdown, value_line
from lhrm_loadtest.rows import Outcome, Row, RowWriter, read_rows
from lhrm_loadtest.summary import complete_pairs, summarise
from lhrm_loadtest.workload import Arm, LoadTestError

PNG = b"\x89PNG\r\n\x1a\n"


def outcome(mode: str, tokens: int, *, saved: float | None = None, correct: bool | None = True, ms: float = 1.0):
    reasoning = tokens - 4 if mode == "think" else 0
    interval = None if saved is None else (saved - 5, saved + 5)
    savings = None if saved is None else Savings(tokens=saved, interval=interval, confidence=0.9, n=10)
    return Outcome(
        accounting=Accounting(
            mode=mode,
            source="model",
            p_think=0.5,
            threshold=0.5,
            reasoning_tokens=reasoning,
            answer_tokens=tokens - reasoning - 2,
            overhead_tokens=2,
            decide_tokens=1 if saved is not None else 0,
            ended_by="stop",
            latency=Latency(),
            savings=savings,
        ),
        usage=Usage(prompt_tokens=10, completion_tokens=tokens, total_tokens=10 + tokens, reasoning_tokens=reasoning),
        first_token_ms=ms,
        first_answer_ms=2 * ms,
        total_ms=3 * ms,
        correct=correct,
    )


def row(position: int, arm: Arm, prompt: str, result: Outcome | None, *, level=1, repeat: int = 0) -> Row:
    return Row(
        position=position,
        arm=arm,
        prompt=prompt,
        task="add",
        level=level,
        closed=False,
        repeat=repeat,
        seed=0,
        started_ms=0.0,
        request_id=None,
        outcome=result,
        error=None if result else "ServerError: engine failed",
    )


# Three complete pairs that save 50, 30 and -10 of 60, 40 and 20 tokens, and one whose auto arm failed.
ROWS = [
    row(0, Arm.AUTO, "a", outcome("no_think", 10, saved=48, ms=10)),
    row(1, Arm.THINK, "a", outcome("think", 60, ms=20)),
    row(2, Arm.THINK, "b", outcome("think", 40, correct=False, ms=40)),
    row(3, Arm.AUTO, "b", outcome("no_think", 10, saved=20, ms=30)),
    row(4, Arm.AUTO, "c", outcome("think", 30, saved=0, correct=False, ms=50), level=2),
    row(5, Arm.THINK, "c", outcome("think", 20, ms=60), level=2),
    row(6, Arm.THINK, "d", outcome("think", 100, ms=80), level=2),
    row(7, Arm.AUTO, "d", None, level=2),
]


def test_arms():
    arms = summarise(ROWS).arms
    auto, think = arms[Arm.AUTO], arms[Arm.THINK]
    assert (auto.requests, auto.errors, think.requests, think.errors) == (4, 1, 4, 0)
    assert (auto.completion_mean, think.completion_mean) == (pytest.approx(50 / 3), 55)
    assert think.completion_p95 == pytest.approx(94)  # 60 + 0.85 * (100 - 60)
    assert (auto.think_rate, think.think_rate) == (pytest.approx(1 / 3), 1)
    assert (auto.accuracy, auto.checked, think.accuracy) == (pytest.approx(2 / 3), 3, 0.75)
    assert auto.first_token_ms == (30, pytest.approx(48))
    assert auto.first_answer_ms == (60, pytest.approx(96))
    assert auto.total_ms == (90, pytest.approx(144))
    assert (auto.ended_by, auto.sources) == ({"stop": 3}, {"model": 3})


def test_paired_difference_uses_complete_pairs_only():
    paired = summarise(ROWS).paired
    assert (paired.pairs, paired.incomplete) == (3, 1)
    assert paired.saved_mean.value == pytest.approx(70 / 3)
    assert paired.saved_pct.value == pytest.approx(100 * 70 / 120)
    assert paired.saved_net_pct.value == pytest.approx(100 * 67 / 120)
    assert paired.accuracy_difference.value == 0  # right, right and wrong against right, wrong and right
    assert paired.saved_mean.low == pytest.approx(-10)
    assert paired.saved_mean.high == pytest.approx(50)


def test_online_estimate_against_the_truth():
    online = summarise(ROWS).online
    assert online.pairs == 3
    assert online.estimated_mean == pytest.approx(68 / 3)
    assert online.true_mean == pytest.approx(70 / 3)
    assert online.bias.value == pytest.approx(-2 / 3)  # -2, -10 and 10
    assert (online.no_think, online.no_think_bias.value) == (2, -6)
    # "a": 50 within 48 +- 5; "b": 30 outside 20 +- 5; "c" chose to think and has no guess.
    assert (online.intervals, online.covered, online.confidence) == (2, 1, 0.9)


def test_groups():
    first, second = summarise(ROWS).levels
    assert (first.name, first.pairs, first.think_rate) == ("1", 2, 0)
    assert (first.completion_auto, first.completion_think) == (10, 50)
    assert (second.name, second.pairs, second.accuracy_auto, second.accuracy_think) == ("2", 1, 0, 1)
    assert [group.name for group in summarise(ROWS).tasks] == ["add"]


def test_numeric_levels_come_in_numeric_order_and_closed_sets_apart():
    rows = []
    for level in ("x", 10, 9):
        for arm, mode in ((Arm.AUTO, "no_think"), (Arm.THINK, "think")):
            one = row(len(rows), arm, f"p{level}", outcome(mode, 10), level=level)
            rows.append(one.model_copy(update={"closed": level == 9}))
    summary = summarise(rows)
    assert [group.name for group in summary.levels] == ["9", "10", "x"]
    assert [(group.name, group.pairs) for group in summary.sets] == [("closed", 1), ("open", 2)]
    assert "Closed sets" in markdown(summary, None)
    assert "Closed sets" not in markdown(summarise(ROWS), None)


def test_repeats_are_pairs_of_one_prompt():
    rows = [
        row(i, arm, "a", outcome(mode, 10 if arm is Arm.AUTO else 20 + repeat), repeat=repeat)
        for i, (arm, mode, repeat) in enumerate(
            [
                (Arm.AUTO, "no_think", 0),
                (Arm.THINK, "think", 0),
                (Arm.THINK, "think", 1),
                (Arm.AUTO, "no_think", 1),
            ]
        )
    ]
    assert [pair.saved for pair in complete_pairs(rows)] == [10, 11]
    saved = summarise(rows).paired.saved_mean
    # One prompt is one observation: resampling it cannot show any spread.
    assert (saved.value, saved.low, saved.high) == (10.5, 10.5, 10.5)


def test_nothing_complete():
    summary = summarise([row(0, Arm.AUTO, "a", None), row(1, Arm.THINK, "a", None)])
    assert (summary.paired.pairs, summary.paired.saved_mean, summary.online.pairs) == (0, None, 0)
    assert "pairs=0 errors=2 tokens_auto=na" in value_line(summary)
    assert "engine failed" in markdown(summary, None)


def test_unchecked_prompts_have_no_accuracy():
    rows = [
        row(0, Arm.AUTO, "a", outcome("no_think", 5, correct=None)),
        row(1, Arm.THINK, "a", outcome("think", 9, correct=None)),
    ]
    summary = summarise(rows)
    assert (summary.arms[Arm.AUTO].accuracy, summary.paired.accuracy_difference) == (None, None)
    assert "accuracy_auto=na" in value_line(summary)


def test_value_line_is_parseable():
    values = dict(pair.split("=") for pair in value_line(summarise(ROWS)).split(" "))
    assert (values["pairs"], values["errors"]) == ("3", "1")
    assert float(values["saved_pct"]) == pytest.approx(58.33)
    assert float(values["online_bias_tokens"]) == pytest.approx(-0.6667)


def _write(directory, rows) -> None:
    with RowWriter(directory) as writer:
        for one in rows:
            writer.write(one)


def test_report_is_made_of_rows_alone_in_any_order(tmp_path, capsys):
    for name, rows in (("one", ROWS), ("two", ROWS[::-1])):
        _write(tmp_path / name, rows)
        assert main(["report", str(tmp_path / name)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("pairs=")]
    assert lines == [value_line(summarise(ROWS))] * 2
    assert (tmp_path / "one" / "report.md").read_text() == (tmp_path / "two" / "report.md").read_text()
    assert (tmp_path / "one" / "report.png").read_bytes().startswith(PNG)
    text = (tmp_path / "one" / "report.md").read_text()
    assert "| completion tokens, mean | 16.7 | 55.0 |" in text
    assert "1 of 2" in text


def test_rows_survive_the_file(tmp_path):
    _write(tmp_path, ROWS)
    assert read_rows(tmp_path) == ROWS
    with pytest.raises(LoadTestError, match="choose another --out"):
        RowWriter(tmp_path)


def test_report_without_a_complete_pair_fails(tmp_path, capsys):
    _write(tmp_path, ROWS[6:])
    assert main(["report", str(tmp_path)]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("pairs=0 ")


@pytest.mark.parametrize(
    ("content", "named"),
    [(None, "cannot read"), ("", "no rows"), ("{}\n", "rows.jsonl:1"), ("nonsense\n", "rows.jsonl:1")],
)
def test_unusable_rows(tmp_path, capsys, content, named):
    if content is not None:
        (tmp_path / "rows.jsonl").write_text(content)
    assert main(["report", str(tmp_path)]) == 1
    assert named in capsys.readouterr().err


def test_unknown_keys_in_rows_are_refused(tmp_path):
    raw = {**json.loads(ROWS[0].model_dump_json()), "surprise": 1}
    (tmp_path / "rows.jsonl").write_text(json.dumps(raw) + "\n")
    with pytest.raises(LoadTestError, match=r"rows\.jsonl:1"):
        read_rows(tmp_path)


def test_cells_cannot_break_the_table():
    bad = row(0, Arm.AUTO, "a", None).model_copy(update={"error": "x | y\nz"})
    assert "| 1 | x \\| y z |" in markdown(summarise([bad]), None)


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
