"""The pipeline: what the engine is asked, and exactly one record whatever the ending."""

import asyncio
from contextlib import aclosing

import pytest
from gateway_fixtures import scripted, until
from lhrm_server.accounting import Ending, Failure
from lhrm_server.chat import ChoiceFinished, Decided, Finished, Generated
from lhrm_server.control import Wish
from lhrm_server.deltas import AnswerDelta, ReasoningDelta
from lhrm_server.engine import EngineDeadError, EngineError, Sampling, StopReason
from lhrm_server.errors import OverloadedError
from pipeline_rig import TOKENIZER, Rig, spelled

from lhrm_train.format import Mode

TAGS = TOKENIZER.tags


async def test_decide_then_generate_is_what_the_engine_sees():
    rig = Rig(p_think=0.7)
    events = await rig.events(temperature=0.3, seed=11, repetition_penalty=1.2)
    decide, generate = rig.engine.requests
    both = (TAGS.think, TAGS.no_think)
    assert decide.sampling == Sampling(1, temperature=0.0, allowed_token_ids=both, logprob_token_ids=both)
    assert generate.sampling == Sampling(200, temperature=0.3, seed=11, repetition_penalty=1.2)
    assert generate.prompt_ids == (*decide.prompt_ids, TAGS.think)
    assert generate.priority < decide.priority
    assert decide.request_id != generate.request_id
    assert (decide.keep, generate.keep, decide.session_id) == (True, False, generate.session_id)
    assert isinstance(events[0], Decided)
    assert isinstance(events[-1], Finished)
    assert (spelled(events, ReasoningDelta), spelled(events, AnswerDelta)) == ("Zwei plus drei, naïve 思考 🤔.", "5 ✓")


@pytest.mark.parametrize(("wish", "tag"), [(Wish.THINK, TAGS.think), (Wish.NO_THINK, TAGS.no_think)])
async def test_forced_requests_skip_the_decide_call(wish, tag):
    rig = Rig()
    events = await rig.events(wish)
    (generate,) = rig.engine.requests
    assert generate.prompt_ids[-1] == tag
    assert events[0].decision.p_think is None
    assert rig.records[0].counts.decide == 0
    assert rig.records[0].latency.decide_ms is None


@pytest.mark.parametrize(
    ("p_think", "threshold", "mode"),
    [
        (0.0, 0, Mode.THINK),
        (1.0, 1, Mode.NO_THINK),
        (0.5, 0.5, Mode.THINK),
        (0.3, 0.25, Mode.THINK),
        (0.3, 0.31, Mode.NO_THINK),
    ],
)
async def test_the_threshold_decides(p_think, threshold, mode):
    rig = Rig(p_think=p_think)
    decided = (await rig.events(threshold=threshold))[0]
    assert decided.decision.mode is mode
    assert decided.decision.p_think == pytest.approx(p_think)
    assert rig.engine.requests[1].prompt_ids[-1] == TAGS.opening(mode)


async def test_length_is_an_ending_like_any_other():
    rig = Rig(p_think=1.0)
    events = await rig.events(max_tokens=3)
    record = events[-1].record
    assert (record.ended_by, record.counts.completion, record.answer_missing) == (Ending.LENGTH, 3, "length")
    assert rig.records == [record]


@pytest.mark.parametrize(
    ("script", "failure", "decided"),
    [
        ({"fail_decide": True}, Failure.REQUEST, False),
        ({"fail_at": 0}, Failure.REQUEST, True),
        ({"fail_at": 3}, Failure.REQUEST, True),
        ({"no_think_ids": (9, 9), "last_reason": StopReason.ABORT, "p_think": 0.0}, Failure.REQUEST, True),
        ({"no_think_ids": (TOKENIZER.turn_end_id, 9), "chunks": (2,), "p_think": 0.0}, Failure.REQUEST, True),
    ],
)
async def test_one_record_when_the_engine_fails(script, failure, decided):
    rig = Rig(**script)
    with pytest.raises(EngineError):
        await rig.events()
    (record,) = rig.records
    assert (record.ended_by, record.failure) == (Ending.ERROR, failure)
    assert (record.decision is not None) == decided
    assert (rig.engine.active, rig.engine.held) == (0, set())


async def test_one_record_when_the_engine_is_gone():
    rig = Rig(hang_at=2)
    stream = await rig.run()
    await anext(stream)
    rig.engine.kill()
    with pytest.raises(EngineDeadError):
        await anext(stream)
    assert [record.failure for record in rig.records] == [Failure.ENGINE_DEAD]
    assert rig.engine.held == set()


@pytest.mark.parametrize("script", [{"hang_decide": True}, {"hang_at": 0}, {"hang_at": 4}])
async def test_one_record_and_an_abort_when_the_caller_is_cancelled(script):
    rig = Rig(**script)
    task = asyncio.create_task(rig.events())
    await until(lambda: rig.engine.hanging)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (record,) = rig.records
    assert record.ended_by is Ending.ABORT
    assert (rig.engine.active, rig.engine.aborted, rig.engine.held) == (0, 1, set())


@pytest.mark.parametrize("taken", [1, 2, 5])
async def test_one_record_and_an_abort_when_the_stream_is_closed(taken):
    rig = Rig()
    async with aclosing(await rig.run()) as events:
        for _ in range(taken):
            await anext(events)
        assert len(rig.engine.held) == (1 if taken == 1 else 0)
    (record,) = rig.records
    assert record.ended_by is Ending.ABORT
    assert record.counts.completion == taken - 1
    assert (rig.engine.active, rig.engine.held) == (0, set())
    # Nothing was asked of the engine after the decision when only that was taken.
    assert rig.engine.aborted == (0 if taken == 1 else 1)


async def test_a_closed_stream_that_had_finished_is_no_abort():
    rig = Rig()
    async with aclosing(await rig.run()) as events:
        async for event in events:
            if isinstance(event, Finished):
                break
    assert [record.ended_by for record in rig.records] == [Ending.STOP]


async def test_no_more_than_the_limit_run_and_the_rest_leave_no_record():
    rig = Rig(limit=2, hang_at=0)
    tasks = [asyncio.create_task(rig.events()) for _ in range(2)]
    await until(lambda: rig.engine.active == 2)
    with pytest.raises(OverloadedError, match="2 completions"):
        await rig.events()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert len(rig.records) == 2
    rig.engine.script = scripted(TOKENIZER)
    assert isinstance((await rig.events())[-1], Finished)


async def test_choices_share_one_decision_and_have_seeds_counts_and_requests_of_their_own():
    rig = Rig(p_think=0.7, chunks=(3, 1))
    events = await rig.events(n=3, seed=2**63 - 2, temperature=0.5)
    decide, *generates = rig.engine.requests
    assert decide.sampling.max_tokens == 1
    assert [g.sampling.seed for g in generates] == [2**63 - 2, 2**63 - 1, -(2**63)]
    assert len({g.request_id for g in rig.engine.requests}) == 4
    assert {g.prompt_ids for g in generates} == {(*decide.prompt_ids, TAGS.think)}
    for index in range(3):
        texts = spelled(events, ReasoningDelta, index), spelled(events, AnswerDelta, index)
        assert texts == ("Zwei plus drei, naïve 思考 🤔.", "5 ✓")
    assert sorted(event.record.index for event in events if isinstance(event, ChoiceFinished)) == [0, 1, 2]
    (record,) = rig.records
    made = len(rig.engine.script.think_ids)
    assert [choice.completion for choice in record.choices] == [made] * 3
    assert (record.counts.completion, record.counts.prompt, record.counts.decide) == (
        3 * made,
        len(generates[0].prompt_ids),
        1,
    )
    assert record.counts.reasoning == 3 * record.choices[0].reasoning > 0


async def test_choices_run_at_the_same_time():
    rig = Rig(hang_at=1)
    task = asyncio.create_task(rig.events(n=4))
    await until(lambda: rig.engine.hanging == 4)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (rig.engine.active, rig.engine.aborted) == (0, 4)
    (record,) = rig.records
    assert record.ended_by is Ending.ABORT
    assert [choice.completion for choice in record.choices] == [1] * 4


async def test_closing_the_stream_of_several_choices_aborts_them_all():
    rig = Rig(hang_at=2)
    async with aclosing(await rig.run(n=3)) as events:
        async for event in events:
            if isinstance(event, Generated):
                break
    assert (rig.engine.active, rig.engine.aborted) == (0, 3)
    assert [record.ended_by for record in rig.records] == [Ending.ABORT]


async def test_one_choice_that_fails_ends_the_others():
    rig = Rig(fail_at=2)
    with pytest.raises(EngineError, match="event 2"):
        await rig.events(n=3)
    assert rig.engine.active == 0
    (record,) = rig.records
    assert (record.ended_by, record.failure, len(record.choices)) == (Ending.ERROR, Failure.REQUEST, 3)


async def test_choices_count_against_the_limit_but_never_lock_a_request_out():
    rig = Rig(limit=3, hang_at=0)
    task = asyncio.create_task(rig.events(n=5))
    await until(lambda: rig.engine.active == 5)
    with pytest.raises(OverloadedError, match="5 completions are in flight, and this server admits 3"):
        await rig.events()
    task.cancel()
    await asyncio.wait([task])
    task = asyncio.create_task(rig.events(n=2))
    await until(lambda: rig.engine.active == 2)
    with pytest.raises(OverloadedError):
        await rig.events(n=2)
    task.cancel()
    await asyncio.wait([task])
    assert len(rig.records) == 2
