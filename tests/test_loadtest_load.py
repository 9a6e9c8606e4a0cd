"""Throughput, goodput, the knee and the driver's own share, against numbers made by hand."""

import pytest
from lhrm_loadtest.errors import LoadTestError
from lhrm_loadtest.load import Load, driver_figures, goodput_ratios, knee, steps
from lhrm_loadtest.slo import Slo, parse_slo
from lhrm_loadtest.summary import summarise
from lhrm_loadtest.values import value_line
from loadtest_rows import reply, row

SLO = Slo("first_answer", 300.0)


def stream(arm: str, gap_ms: float, answer_ms: float, *, count: int = 5, block: int = 0, concurrency: int = 1, **more):
    """Requests due every `gap_ms` that give an answer token after `answer_ms`, half as late again the last token."""
    return [
        row(
            arm,
            f"p{i}",
            reply("think", 20),
            pair=100 * block + i,
            block=block,
            scheduled_ms=i * gap_ms,
            ms=answer_ms / 2,
            concurrency=concurrency,
            **more,
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("text", ["first_answer", "first<=3", "total<=", "total<=0", "total<=nan", "total<=inf", "x"])
def test_an_objective_that_cannot_be_read_is_named(text):
    with pytest.raises(LoadTestError, match="slo = "):
        parse_slo(text)


def test_an_objective_is_about_the_scheduled_arrival():
    slo = parse_slo("first_answer<=300")
    assert (slo, str(slo)) == (SLO, "first_answer<=300")
    on_time = row("auto", "a", reply("think", 9), pair=0, ms=150, scheduled_ms=1000.0)
    assert slo.met(on_time)
    assert not slo.met(on_time.model_copy(update={"scheduled_ms": 999.0}))
    assert not slo.met(on_time.model_copy(update={"first_answer_ms": None}))
    assert not slo.met(row("auto", "a", None, pair=0))


def test_throughput_counts_what_ends_while_the_load_is_full():
    # Due at 0, 400, ... 1600; each ends 300 ms later. Four of the five end within (0, 1600].
    (step,) = steps(stream("auto", 400, 200), ["auto"], [SLO])
    assert step.window_s == 1.6
    assert step.throughput == 4 / 1.6
    assert step.tokens_per_s == 80 / 1.6
    assert (step.total_mean_ms, step.power) == (300, pytest.approx(1000 * 2.5 / 300))
    assert (step.met[str(SLO)], step.goodput[str(SLO)]) == (1, 4 / 1.6)


def test_goodput_leaves_out_the_late_and_the_failed():
    rows = stream("auto", 400, 200)
    rows[1] = row("auto", "p1", reply("think", 20), pair=1, scheduled_ms=400.0, ms=151)  # an answer after 302 ms
    rows[2] = row("auto", "p2", None, pair=2, scheduled_ms=800.0)
    (step,) = steps([one.model_copy(update={"concurrency": 1}) for one in rows], ["auto"], [SLO])
    assert (step.requests, step.errors) == (5, 1)
    assert step.met[str(SLO)] == 3 / 5
    assert step.throughput == 3 / 1.6
    assert step.goodput[str(SLO)] == 2 / 1.6


def test_warm_up_fills_the_load_but_opens_no_window():
    warm = stream("auto", 400, 200, count=2)
    rows = [one.model_copy(update={"warmup": True}) for one in warm] + stream("auto", 400, 200)[2:]
    (step,) = steps(rows, ["auto"], [SLO])
    assert step.requests == 3
    assert step.window_s == 0.8  # 800 to 1600
    assert step.throughput == 2 / 0.8  # those due at 800 and 1200 end at 1100 and 1500; the warm one at 700 is outside


def test_windows_of_blocks_and_sessions_add_up():
    first = stream("auto", 400, 200, block=0)
    second = stream("auto", 400, 200, block=1, repeat=1)
    later = [one.model_copy(update={"session": 1, "pair": one.pair + 50}) for one in second]
    (step,) = steps([*first, *second, *later], ["auto"], [SLO])
    assert step.window_s == pytest.approx(4.8)
    assert step.throughput == pytest.approx(12 / 4.8)


def test_another_arms_block_is_not_in_the_window():
    rows = [*stream("auto", 400, 200, block=0), *stream("think", 1000, 900, block=1)]
    auto, think = steps(rows, ["auto", "think"], [SLO])
    assert (auto.window_s, think.window_s) == (1.6, 4.0)


def test_requests_that_all_begin_at_once_have_no_throughput():
    (step,) = steps(stream("auto", 0, 200), ["auto"], [SLO])
    assert (step.window_s, step.throughput, step.goodput[str(SLO)], step.power) == (0, None, None, None)


def ramp(arm: str, *answers: tuple[int, float, float], repeat: int = 0, base: int = 0):
    """One block for each (concurrency, gap, answer time)."""
    return [
        one
        for place, (concurrency, gap_ms, answer_ms) in enumerate(answers)
        for one in stream(arm, gap_ms, answer_ms, block=base + place, concurrency=concurrency, repeat=repeat)
    ]


def test_the_knee_has_the_most_throughput_per_waiting():
    # Gaps 400, 200, 190 ms; durations 150, 180, 600 ms.
    rows = ramp("auto", (1, 400, 100), (2, 200, 120), (4, 190, 400))
    found = steps(rows, ["auto"], [])
    assert [step.load.size for step in found] == [1, 2, 4]
    assert knee(found).load == Load(2, None)
    assert knee(found[:2]) is None
    assert summarise(rows).knees["auto"].load == Load(2, None)


def test_goodput_ratio_is_of_the_best_loads():
    # Auto meets the SLO at both loads, its best is 1 / .1 s; think only alone, 1 / .4 s.
    rows = ramp("auto", (1, 200, 50), (2, 100, 50)) + ramp("think", (1, 400, 200), (2, 200, 400), base=2)
    for one in goodput_ratios(rows, ["auto", "think"], "think", [SLO]):
        assert (one.best, one.best_load) == (10, Load(2, None))
        assert (one.baseline, one.baseline_load) == (2.5, Load(1, None))
        assert (one.ratio, one.low, one.high) == (4, 4, 4)


def test_a_load_that_leaves_requests_behind_does_not_count_where_most_must_be_good():
    # At 2 at a time two of auto's five requests are late: 2 are good and end within .4 s. Alone 4 in 1.6 s.
    fast = stream("auto", 100, 50, block=1, concurrency=2)
    for place in (0, 1):
        fast[place] = fast[place].model_copy(update={"first_answer_ms": fast[place].scheduled_ms + 301})
    rows = [*stream("auto", 400, 100), *fast, *stream("think", 400, 200, block=2)]
    found = goodput_ratios(rows, ["auto", "think"], "think", [SLO])
    assert [(one.share, one.best, one.best_load.concurrency) for one in found] == [(0, 2 / 0.4, 2), (0.9, 2.5, 1)]
    assert [one.ratio for one in found] == [2, 1]
    values = dict(pair.split("=") for pair in value_line(summarise(rows, slos=[SLO])).split(" "))
    assert values["goodput_ratio_auto_first_answer_300ms"] == "2"
    assert values["goodput_ratio_auto_first_answer_300ms_at_90_pct"] == "1"
    assert (values["goodput_auto"], values["goodput_think"]) == ("5", "2.5")


def test_goodput_ratio_shows_how_the_repeats_differ():
    rows = ramp("auto", (1, 100, 50)) + ramp("think", (1, 400, 200), base=1)
    rows += ramp("auto", (1, 200, 50), repeat=1, base=2) + ramp("think", (1, 400, 200), repeat=1, base=3)
    one, _ = goodput_ratios(rows, ["auto", "think"], "think", [SLO])
    assert one.best == pytest.approx(8 / 1.2)
    assert (one.ratio, one.low, one.high) == (pytest.approx(8 / 1.2 / 2.5), 2, 4)


def test_no_ratio_to_nothing():
    rows = ramp("auto", (1, 200, 50)) + ramp("think", (1, 400, 900), base=1)
    assert goodput_ratios(rows, ["auto", "think"], "think", [SLO]) == []


def test_loads_have_names():
    assert [str(load) for load in (Load(4, None), Load(None, 2.5), Load(None, None))] == [
        "4 at a time",
        "2.5/s",
        "trace",
    ]


def test_the_drivers_share_is_that_of_the_last_row_of_a_block():
    def timed(block, end_ms, cpu_ms, **more):
        one = row("auto", "a", reply("think", 9), pair=block, block=block, **more)
        return one.model_copy(update={"end_ms": end_ms, "driver_cpu_ms": cpu_ms})

    rows = [timed(0, 500.0, 50.0), timed(0, 1000.0, 100.0), timed(1, 1000.0, 900.0, concurrency=64)]
    found = driver_figures(rows)
    assert found.cpu_share == pytest.approx(0.5)
    assert (found.busiest_share, found.busiest_load) == (0.9, Load(64, None))
    assert found.is_bottleneck
    assert found.late_p99_ms is None
    assert not driver_figures(rows[:2]).is_bottleneck
