"""Figures of arms and pairs, the oracle and the curve, against numbers made by hand."""

import math

import pytest
from lhrm_loadtest.errors import LoadTestError
from lhrm_loadtest.figures import Price
from lhrm_loadtest.pairs import Choice, choices, collect, curve, oracle, other_mixes, roles
from lhrm_loadtest.summary import summarise
from lhrm_loadtest.values import value_line
from loadtest_rows import ROWS, reply, row


def test_arms():
    arms = summarise(ROWS).arms
    auto, think = arms["auto"], arms["think"]
    assert (auto.requests, auto.errors, think.requests, think.errors) == (4, 1, 4, 0)
    assert (auto.completion.mean, think.completion.mean) == (pytest.approx(50 / 3), 55)
    assert (think.completion.p50, think.completion.p95) == (50, pytest.approx(94))  # 60 + .85 x (100 - 60)
    assert (auto.reasoning.mean, think.reasoning.p50) == (pytest.approx(26 / 3), 46)
    assert (auto.think_rate, think.think_rate) == (pytest.approx(1 / 3), 1)
    assert (auto.accuracy, auto.scored, think.accuracy) == (pytest.approx(2 / 3), 3, 0.75)
    # 10, 30 and 50 ms to the first token: p50 30, p90 46, p95 48, p99 49.6.
    assert auto.latency_ms["first_token"] == pytest.approx((30, 46, 48, 49.6))
    assert auto.latency_ms["first_answer"] == pytest.approx((60, 92, 96, 99.2))
    assert auto.latency_ms["total"] == pytest.approx((90, 138, 144, 148.8))
    assert (auto.ended_by, auto.sources) == ({"stop": 3}, {"model": 3})
    assert auto.cost is None


def test_latency_counts_from_the_scheduled_arrival_and_not_from_the_sending():
    late = row("think", "a", reply("think", 9), pair=0, ms=10, rate=2.0, concurrency=None, scheduled_ms=100.0)
    late = late.model_copy(
        update={"sent_ms": 400.0, "first_token_ms": 450.0, "first_answer_ms": 460.0, "end_ms": 470.0}
    )
    summary = summarise([late])
    assert summary.arms["think"].latency_ms["first_token"][0] == 350
    assert summary.arms["think"].latency_ms["total"][0] == 370
    assert summary.driver.late_p99_ms == 300


def test_differences_use_complete_pairs_only():
    one = summarise(ROWS).differences["auto"]
    assert (one.pairs, one.incomplete) == (3, 1)
    assert one.saved.value == pytest.approx(70 / 3)
    assert (one.saved.low, one.saved.high) == (-10, 50)
    assert one.saved_pct.value == pytest.approx(100 * 70 / 120)
    assert one.saved_net_pct.value == pytest.approx(100 * 67 / 120)
    assert one.ratio.value == pytest.approx(50 / 120)
    assert one.saved_reasoning.value == pytest.approx((56 + 36 + (16 - 26)) / 3)
    assert one.accuracy.value == 0  # right, right and wrong against right, wrong and right
    assert one.first_answer_ms.value == pytest.approx(2 * (10 + 10 + 10) / 3)


def test_cost_is_what_the_price_says():
    price = Price(prompt=1.0, completion=10.0)
    summary = summarise(ROWS, price=price)
    # 10 prompt tokens at 1 and, on average, 50 / 3 completion tokens at 10 per million; a thousand requests.
    assert summary.arms["auto"].cost == pytest.approx((10 + 500 / 3) / 1000)
    # Pairs: always-think 30 x 1 + 120 x 10 = 1230, auto 30 + 50 x 10 = 530.
    assert summary.differences["auto"].cost_pct.value == pytest.approx(100 * 700 / 1230)


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
    assert (first.name, first.pairs, first.think_rate) == ("1", 2, {"auto": 0, "think": 1})
    assert first.tokens == {"auto": 10, "think": 50}
    assert (second.name, second.pairs, second.accuracy) == ("2", 1, {"auto": 0, "think": 1})
    assert [group.name for group in summarise(ROWS).tasks] == ["add"]


def test_numeric_levels_come_in_numeric_order_and_closed_sets_apart():
    rows = [
        row(arm, f"p{level}", reply(mode, 10), pair=pair, level=level, closed=level == 9)
        for pair, level in enumerate(("x", 10, 9))
        for arm, mode in (("auto", "no_think"), ("think", "think"))
    ]
    summary = summarise(rows)
    assert [group.name for group in summary.levels] == ["9", "10", "x"]
    assert [(group.name, group.pairs) for group in summary.sets] == [("closed", 1), ("open", 2)]


def test_repeats_are_pairs_of_one_prompt():
    rows = [
        row(arm, "a", reply(mode, 10 if arm == "auto" else 20 + pair), pair=pair, repeat=pair)
        for pair in (0, 1)
        for arm, mode in (("auto", "no_think"), ("think", "think"))
    ]
    saved = summarise(rows).differences["auto"].saved
    # One prompt is one observation: resampling it cannot show any spread.
    assert (saved.value, saved.low, saved.high) == (10.5, 10.5, 10.5)


def test_the_servers_own_times():
    told = [reply("no_think", 9).model_copy(update={"queue_ms": 1.0, "decide_ms": ms}) for ms in (2.0, 4.0)]
    auto = summarise([row("auto", f"p{i}", one, pair=i) for i, one in enumerate(told)]).arms["auto"]
    assert (auto.decide_ms.p50, auto.queue_ms.mean) == (3, 1)
    assert summarise(ROWS).arms["auto"].decide_ms.p50 is None


def test_warm_up_is_in_no_figure():
    cold = row("auto", "z", reply("think", 999), pair=9, warmup=True, ms=9999)
    with_it, without = summarise([*ROWS, cold]), summarise(ROWS)
    assert with_it.arms == without.arms
    assert with_it.differences == without.differences
    assert (with_it.warmups, without.warmups) == (1, 0)


def test_nothing_complete():
    summary = summarise([row("auto", "a", None, pair=0), row("think", "a", None, pair=0)])
    assert (summary.pairs, summary.differences["auto"].saved, summary.online.pairs) == (0, None, 0)
    assert "pairs=0 errors=2" in value_line(summary)
    assert "completion_tokens_auto=na" in value_line(summary)


def test_unscored_prompts_have_no_accuracy():
    rows = [row(arm, "a", reply("think", 9), pair=0, score=None) for arm in ("auto", "think")]
    summary = summarise(rows)
    assert (summary.arms["auto"].accuracy, summary.differences["auto"].accuracy, summary.oracle) == (None, None, None)


def test_a_run_without_measured_requests_or_with_a_wrong_baseline_is_refused():
    with pytest.raises(LoadTestError, match="no request was measured"):
        summarise([row("auto", "a", reply("think", 9), pair=0, warmup=True)])
    with pytest.raises(LoadTestError, match="baseline = 'no_think': the arms with rows are auto, think"):
        summarise(ROWS, "no_think")


def test_value_line_is_parseable():
    values = dict(pair.split("=") for pair in value_line(summarise(ROWS)).split(" "))
    assert (values["pairs"], values["errors"]) == ("3", "1")
    assert float(values["tokens_ratio_auto"]) == pytest.approx(0.4167)
    assert float(values["online_bias_tokens"]) == pytest.approx(-0.6667)


def three_arms(prompt, pair, p_think, think, no_think):
    """The rows of one prompt: (score, tokens) in both modes, and what auto made of `p_think` at .5."""
    chosen, mode = (think, "think") if p_think >= 0.5 else (no_think, "no_think")
    return [
        row("auto", prompt, reply(mode, chosen[1], p_think=p_think), pair=pair, score=chosen[0]),
        row("think", prompt, reply("think", think[1]), pair=pair, score=think[0]),
        row("no_think", prompt, reply("no_think", no_think[1]), pair=pair, score=no_think[0]),
    ]


# Easy and sure; hard and sure; hard but thought easy; neither mode right.
THREE = [
    *three_arms("easy", 0, 0.1, (1.0, 50), (1.0, 5)),
    *three_arms("hard", 1, 0.9, (1.0, 60), (0.0, 5)),
    *three_arms("missed", 2, 0.4, (1.0, 40), (0.0, 5)),
    *three_arms("lost", 3, 0.4, (0.0, 30), (0.0, 5)),
]


def test_the_oracle_takes_the_better_mode_and_the_cheaper_of_equals():
    best = summarise(THREE).oracle
    assert (best.pairs, best.accuracy, best.think_rate) == (4, 0.75, 0.5)
    assert best.tokens == (5 + 60 + 40 + 5) / 4
    assert best.ratio.value == pytest.approx(110 / 180)
    # Thinking can be the cheaper mode.
    assert Choice("q", None, (1.0, 3), (1.0, 9)).best == (1.0, 3)


def test_other_mixes_weigh_the_prompts_that_need_thinking():
    found = [
        Choice("hard", 0.9, (1.0, 60), (0.0, 4), 60),
        Choice("easy", 0.1, (1.0, 20), (1.0, 6), 6),
        Choice("missed", 0.6, (1.0, 40), (1.0, 4), 44),
        Choice("not asked", None, (1.0, 1000), (1.0, 1)),
    ]
    mixes = other_mixes(found, (0.0, 0.25, 1.0))
    assert [mix.auto for mix in mixes] == pytest.approx([25 / 30, (15 + 18.75) / (15 + 22.5), 1.0])
    assert [mix.oracle for mix in mixes] == pytest.approx([5 / 30, (15 + 3.75) / (15 + 22.5), 1.0])
    assert other_mixes(found[1:]) == other_mixes(found[:1]) == []


def test_the_curve_moves_pairs_over_in_the_order_of_their_probability():
    points = summarise(THREE).curve
    assert [(p.threshold, p.think_rate, p.accuracy, p.tokens) for p in points] == [
        (math.inf, 0, 0.25, 5),
        (0.9, 0.25, 0.5, (5 + 60 + 5 + 5) / 4),
        (0.4, 0.75, 0.75, (5 + 60 + 40 + 30) / 4),  # two prompts at the same probability go together
        (0.1, 1, 0.75, 45),
    ]
    # The point at .5 is what the auto arm did.
    auto = summarise(THREE).arms["auto"]
    assert (auto.accuracy, auto.completion.mean) == (points[1].accuracy, points[1].tokens)


def test_oracle_and_curve_need_both_modes_scored():
    rows = [one for one in THREE if one.arm != "no_think"]
    assert choices(collect(rows), roles(rows)) == []
    assert (oracle([]), curve([])) == (None, [])
    unsure = [one.model_copy(update={"score": None}) if one.prompt == "easy" else one for one in THREE]
    assert summarise(unsure).oracle.pairs == 3


def test_modes_of_another_model_are_not_its_alternatives():
    other = [
        one.model_copy(update={"arm": "r1", "asked": "think", "model": "other"}) for one in THREE if one.arm == "auto"
    ]
    found = roles([*other, *(one for one in THREE if one.arm != "think")])
    assert (found.auto, found.think, found.no_think) == ("auto", None, "no_think")
