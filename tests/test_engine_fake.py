import asyncio
import math

import pytest
from gateway_fixtures import load_tokenizer, no_think, think
from lhrm_server.engine import EngineDeadError, EngineError, GenerationRequest, Grammar, Sampling, StopReason
from lhrm_server.engine_fake import FakeEngine, Script

from lhrm_train.format import Message, Mode, encode_chat

TOKENIZER = load_tokenizer()
TAGS = TOKENIZER.tags
BOTH = (TAGS.think, TAGS.no_think)


def prompt(mode=None, text="hi"):
    return tuple(encode_chat(TOKENIZER, [Message("user", text)], mode))


def ask(ids, **sampling):
    return GenerationRequest("r", ids, Sampling(**{"max_tokens": 200, **sampling}))


def decide(ids):
    return ask(ids, max_tokens=1, allowed_token_ids=BOTH, logprob_token_ids=BOTH)


async def started(script=None, **options):
    engine = FakeEngine(TOKENIZER, script, **options)
    await engine.start()
    return engine


async def play(engine, request):
    return [delta async for delta in engine.generate(request)]


def ids_of(deltas):
    return tuple(token for delta in deltas for token in delta.token_ids)


async def test_both_modes_follow_the_prompt():
    script = Script(think_ids=think(TOKENIZER, "r", "a"), no_think_ids=no_think(TOKENIZER, "b"))
    engine = await started(script)
    for mode, body in ((Mode.THINK, script.think_ids), (Mode.NO_THINK, script.no_think_ids)):
        deltas = await play(engine, ask(prompt(mode)))
        assert ids_of(deltas) == body
        assert [delta.stop_reason for delta in deltas] == [None] * (len(body) - 1) + [StopReason.STOP]
    free = ids_of(await play(engine, ask(prompt())))
    assert free == (TAGS.think, *script.think_ids)
    assert (engine.finished, engine.failed, engine.aborted, engine.active) == (3, 0, 0, 0)


async def test_decide_gives_the_scripted_probabilities():
    engine = await started(Script(p_think=0.2, tag_mass=0.5))
    (delta,) = await play(engine, decide(prompt()))
    assert delta.token_ids == (TAGS.no_think,)
    assert delta.stop_reason is StopReason.LENGTH
    (row,) = delta.logprobs
    assert math.exp(row[TAGS.think]) == pytest.approx(0.1)
    assert math.exp(row[TAGS.no_think]) == pytest.approx(0.4)


@pytest.mark.parametrize("limit", [1, 3, 7])
@pytest.mark.parametrize("chunks", [(1,), (2, 3), (100,)])
async def test_max_tokens_and_chunks(limit, chunks):
    engine = await started(Script(think_ids=think(TOKENIZER, "long reasoning", "a"), chunks=chunks))
    deltas = await play(engine, ask(prompt(Mode.THINK), max_tokens=limit))
    assert ids_of(deltas) == engine.script.think_ids[:limit]
    assert deltas[-1].stop_reason is StopReason.LENGTH
    assert len(deltas[0].token_ids) == min(chunks[0], limit)


async def test_body_without_an_end_of_turn_ends_as_scripted():
    engine = await started(Script(no_think_ids=(9, 9), last_reason=StopReason.ABORT))
    assert (await play(engine, ask(prompt(Mode.NO_THINK))))[-1].stop_reason is StopReason.ABORT


async def test_scripted_failures_count_as_failed():
    engine = await started(Script(fail_at=2, fail_decide=True))
    stream = engine.generate(ask(prompt(Mode.THINK)))
    assert [len((await anext(stream)).token_ids) for _ in range(2)] == [1, 1]
    with pytest.raises(EngineError, match="event 2"):
        await anext(stream)
    with pytest.raises(EngineError, match="event 0"):
        await play(engine, decide(prompt()))
    assert (engine.failed, engine.aborted) == (2, 0)


async def test_closing_a_stream_early_counts_as_aborted():
    engine = await started(Script(hang_at=1))
    stream = engine.generate(ask(prompt(Mode.THINK)))
    await anext(stream)
    assert engine.active == 1
    hanging = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging
    assert (engine.active, engine.aborted, engine.finished) == (0, 1, 0)
    other = engine.generate(ask(prompt(Mode.THINK)))
    await anext(other)
    await other.aclose()
    assert engine.aborted == 2


async def test_death_ends_running_and_later_requests():
    engine = await started(Script(hang_at=1))
    stream = engine.generate(ask(prompt(Mode.THINK)))
    await anext(stream)
    hanging = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    engine.kill()
    with pytest.raises(EngineDeadError):
        await hanging
    with pytest.raises(EngineDeadError):
        await play(engine, ask(prompt()))
    assert await engine.healthy() is False


async def test_life_cycle():
    engine = FakeEngine(TOKENIZER)
    assert await engine.healthy() is False
    with pytest.raises(EngineDeadError):
        await play(engine, ask(prompt()))
    await engine.start()
    assert await engine.healthy() is True
    await engine.close()
    await engine.close()
    assert await engine.healthy() is False


@pytest.mark.parametrize(
    "request_",
    [
        ask(()),
        ask((TOKENIZER.vocab_size,)),
        ask((-1,)),
        ask(prompt(), max_tokens=0),
        ask(prompt(), max_tokens=512),
    ],
)
async def test_impossible_requests_fail(request_):
    engine = await started()
    with pytest.raises(EngineError):
        await play(engine, request_)


async def test_default_script_answers_in_both_modes_and_thinks_about_numbers():
    engine = await started()
    (easy,) = await play(engine, decide(prompt(text="hello")))
    (hard,) = await play(engine, decide(prompt(text="What is 48371+92615?")))
    assert (easy.token_ids, hard.token_ids) == ((TAGS.no_think,), (TAGS.think,))
    answer = TOKENIZER.decode(ids_of(await play(engine, ask(prompt(Mode.NO_THINK)))))
    assert answer.startswith("A scripted answer.")


async def test_a_prompt_that_ends_with_the_closing_tag_gets_the_answer():
    body = think(TOKENIZER, "r", "a")
    engine = await started(Script(think_ids=body, chunks=(2,)))
    closed = (*prompt(Mode.THINK), 9, TAGS.think_end)
    assert ids_of(await play(engine, ask(closed))) == body[body.index(TAGS.think_end) + 1 :]
    engine.script = Script(think_ids=(9, 9))
    assert ids_of(await play(engine, ask(closed))) == (TOKENIZER.turn_end_id,)


async def test_a_grammar_is_answered_by_its_script():
    engine = await started(Script(grammar_ids=(9, TOKENIZER.turn_end_id)))
    request = ask(prompt(Mode.NO_THINK), grammar=Grammar("json", "{}"))
    assert ids_of(await play(engine, request)) == (9, TOKENIZER.turn_end_id)


@pytest.mark.parametrize("chunks", [(1,), (100,)])
async def test_ids_behind_a_stop_id_are_never_given(chunks):
    engine = await started(Script(think_ids=(9, 10, 11, 10), chunks=chunks))
    deltas = await play(engine, ask(prompt(Mode.THINK), stop_token_ids=(10,)))
    assert ids_of(deltas) == (9, 10)
    assert deltas[-1].stop_reason is StopReason.STOP


async def test_log_probabilities_follow_the_emitted_ids():
    engine = await started(Script(think_ids=(9, 10), chunks=(2,)))
    (delta,) = await play(engine, ask(prompt(Mode.THINK), top_logprobs=2))
    assert delta.logprobs == ({9: -0.25, 10: -1.25}, {10: -0.25, 11: -1.25})
