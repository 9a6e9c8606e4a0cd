"""The load test's plan: every prompt in every arm, counterbalanced, seeded, at every load."""

import math
from collections import Counter
from dataclasses import replace

import pytest
from lhrm_loadtest.errors import LoadTestError
from lhrm_loadtest.plan import Block, Design, Step, order, plan, poisson
from lhrm_loadtest.prompts import Prompt
from lhrm_loadtest.runner import remaining
from pydantic import ValidationError

PROMPTS = [Prompt(id=str(i), messages=[{"role": "user", "content": f"q{i}"}]) for i in range(9)]
TWO = Design(("auto", "think"), (Step(concurrency=2, requests=9),), "mixed", repeats=1, warmup=0, seed=3)


def jobs(design, prompts=PROMPTS):
    return [job for block in plan(prompts, design) for job in block.jobs]


def test_two_arms_alternate_abba():
    a, b = "auto", "think"
    assert [order((a, b), turn) for turn in range(4)] == [[a, b], [b, a], [b, a], [a, b]]


def test_every_arm_of_three_has_every_place_equally_often():
    orders = [tuple(order("abc", turn)) for turn in range(6)]
    assert len(set(orders)) == 6


def test_every_prompt_is_asked_once_in_each_arm():
    planned = jobs(TWO)
    assert Counter((job.prompt.id, job.arm) for job in planned) == Counter(
        (p.id, arm) for p in PROMPTS for arm in TWO.arms
    )
    assert [job.position for job in planned] == list(range(18))
    assert not any(job.warmup for job in planned)


def test_the_arms_of_a_pair_share_prompt_and_seed():
    planned = jobs(TWO)
    for first, second in zip(planned[::2], planned[1::2], strict=True):
        assert (first.pair, first.prompt, first.seed) == (second.pair, second.prompt, second.seed)
    assert [job.arm for job in planned][:8] == ["auto", "think", "think", "auto", "think", "auto", "auto", "think"]
    assert len({job.seed for job in planned}) == 9


def test_the_plan_is_seeded():
    assert plan(PROMPTS, TWO) == plan(PROMPTS, TWO)
    assert plan(PROMPTS, TWO) != plan(PROMPTS, replace(TWO, seed=4))


def test_repeats_ask_the_same_prompts_with_other_seeds():
    planned = jobs(replace(TWO, repeats=2))
    first, second = ([job for job in planned if job.repeat == repeat] for repeat in (0, 1))
    assert {job.prompt.id for job in first} == {job.prompt.id for job in second} == {p.id for p in PROMPTS}
    assert not {job.seed for job in first} & {job.seed for job in second}
    assert not {job.pair for job in first} & {job.pair for job in second}


def test_blocks_give_each_arm_the_server_for_itself_in_abba_order():
    steps = (Step(concurrency=1, requests=2), Step(concurrency=4, requests=3))
    blocks = plan(PROMPTS, replace(TWO, steps=steps, layout="blocks", repeats=2))
    arms = [{job.arm for job in block.jobs} for block in blocks]
    assert arms == [{"auto"}, {"think"}, {"think"}, {"auto"}, {"think"}, {"auto"}, {"auto"}, {"think"}]
    assert [block.step for block in blocks[::2]] == [*steps, *steps]
    # Both arms ask the same prompts under one load, and other prompts under the next.
    asked = [[job.prompt.id for job in block.jobs] for block in blocks]
    assert asked[0] == asked[1]
    assert not set(asked[0]) & set(asked[2])


def test_a_deck_is_dealt_out_before_a_prompt_comes_again():
    planned = jobs(replace(TWO, arms=("auto",), steps=(Step(concurrency=1, requests=18),)))
    ids = [job.prompt.id for job in planned]
    assert sorted(ids[:9]) == sorted(ids[9:]) == [str(i) for i in range(9)]


def test_warm_up_opens_every_block_and_is_not_one_of_the_requests():
    step = Step(concurrency=1, requests=3)
    blocks = plan(PROMPTS, replace(TWO, steps=(step,), layout="blocks", warmup=2))
    assert [[job.warmup for job in block.jobs] for block in blocks] == [[True, True, False, False, False]] * 2


def test_warm_up_leaves_all_prompts_to_be_measured():
    measured = [job for job in jobs(replace(TWO, warmup=4)) if not job.warmup]
    assert {job.prompt.id for job in measured} == {prompt.id for prompt in PROMPTS}
    assert len(measured) == 18


def test_open_loop_arms_are_replayed_the_same_arrivals():
    step = Step(rate=5.0, requests=6)
    first, second = plan(PROMPTS, replace(TWO, steps=(step,), layout="blocks"))
    times = [job.arrival_s for job in first.jobs]
    assert times == [job.arrival_s for job in second.jobs]
    assert times == sorted(times)
    mixed = [job.arrival_s for job in jobs(replace(TWO, steps=(step,)))]
    assert (len(mixed), mixed) == (12, sorted(mixed))


def test_poisson_gaps_are_exponential():
    times = poisson(50.0, 20_000, "seed")
    gaps = [b - a for a, b in zip([0.0, *times], times, strict=False)]
    assert sum(gaps) / len(gaps) == pytest.approx(1 / 50, rel=0.03)
    # An exponential variable is above its mean with probability 1 / e, and its deviation is its mean.
    assert sum(gap > 0.02 for gap in gaps) / len(gaps) == pytest.approx(1 / math.e, abs=0.01)
    assert math.sqrt(sum((gap - 0.02) ** 2 for gap in gaps) / len(gaps)) == pytest.approx(0.02, rel=0.03)
    assert poisson(50.0, 3, "seed") == times[:3]
    assert poisson(50.0, 3, "other") != times[:3]


TRACE = [prompt.model_copy(update={"arrival_s": at}) for prompt, at in zip(PROMPTS, (7.5, 5, 6), strict=False)]
REPLAY = replace(TWO, steps=(Step(requests=3),), layout="blocks")


def test_a_trace_is_replayed_in_its_order_from_its_first_arrival():
    blocks = plan(TRACE, replace(REPLAY, warmup=1))
    for block in blocks:
        assert [(job.prompt.id, job.arrival_s) for job in block.jobs] == [("1", 0.0), ("2", 1.0), ("0", 2.5)]
        assert [job.warmup for job in block.jobs] == [True, False, False]


@pytest.mark.parametrize(
    ("prompts", "design", "named"),
    [
        (PROMPTS, replace(TWO, repeats=0), "repeats = 0"),
        (PROMPTS, replace(TWO, warmup=-1), "warmup = -1"),
        ([], TWO, "at least one"),
        (PROMPTS, replace(TWO, steps=()), "at least one"),
        (PROMPTS, replace(TWO, arms=()), "at least one"),
        (PROMPTS, REPLAY, "prompt '0' has no arrival_s"),
        (TRACE, replace(REPLAY, layout="mixed"), "layout = 'mixed'"),
        (TRACE, replace(REPLAY, warmup=3), "warmup = 3"),
    ],
)
def test_designs_that_cannot_be_run(prompts, design, named):
    with pytest.raises(LoadTestError, match=named):
        plan(prompts, design)


@pytest.mark.parametrize(
    "fields",
    [
        {"concurrency": 0},
        {"rate": 0.0},
        {"rate": -1.0},
        {"rate": math.inf},
        {"concurrency": 1, "rate": 1.0},
        {"requests": 0},
    ],
)
def test_loads_that_do_not_exist(fields):
    with pytest.raises(ValidationError):
        Step(**{"requests": 1, **fields})


def test_what_is_done_is_not_asked_again():
    blocks = plan(PROMPTS, replace(TWO, layout="blocks"))
    left = remaining(blocks, set(range(11)))
    assert [job.position for block in left for job in block.jobs] == list(range(11, 18))
    assert left == [Block(1, TWO.steps[0], blocks[1].jobs[2:])]
    assert remaining(blocks, set(range(18))) == []
