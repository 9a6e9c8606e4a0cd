"""What every engine must do, on the scripted and on the real one."""

import asyncio
import math
import re
from contextlib import aclosing
from itertools import count

import pytest
from conftest import NANO, collect, serve_on_socket
from lhrm_server.engine import (
    Engine,
    EngineDeadError,
    EngineError,
    GenerationRequest,
    Grammar,
    RequestRefusedError,
    Sampling,
    StopReason,
)
from lhrm_server.engine_fake import FakeEngine
from lhrm_server.engine_vllm import VllmEngine, VllmOptions
from remote_fixtures import fake_vllm, remote_engine

from lhrm_train.format import ChatTokenizer, Message, encode_chat

ENGINES = [
    "fake",
    pytest.param("vllm", marks=pytest.mark.engine),
    "remote",
    pytest.param("remote vllm", marks=pytest.mark.vllm_serve),
]


@pytest.fixture(scope="module")
def fake_server(loop_thread, nano_tokenizer):
    """URL of a scripted ``vllm serve``."""
    server = fake_vllm(nano_tokenizer)
    loop_thread.run(server.engine.start())
    yield from serve_on_socket(server.app(), loop_thread)


@pytest.fixture(params=ENGINES)
def engine(request, loop_thread, nano_tokenizer):
    if request.param == "vllm":
        yield request.getfixturevalue("vllm_engine")
        return
    engine = new_engine(request, nano_tokenizer)
    loop_thread.run(engine.start())
    yield engine
    loop_thread.run(engine.close())


@pytest.fixture(params=ENGINES)
def own_engine(request, loop_thread, nano_tokenizer):
    """An engine that the test may close."""
    engine = new_engine(request, nano_tokenizer)
    loop_thread.run(engine.start(), timeout=200)
    yield engine
    loop_thread.run(engine.close())


def new_engine(request, nano_tokenizer) -> Engine:
    if request.param == "vllm":
        return VllmEngine(VllmOptions(NANO, (nano_tokenizer.turn_end_id,), cpu_kv_cache_bytes=1 << 26))
    if request.param == "fake":
        return FakeEngine(nano_tokenizer, max_model_len=1024)
    server = "fake_server" if request.param == "remote" else "vllm_server"
    return remote_engine(request.getfixturevalue(server), nano_tokenizer)


@pytest.fixture
def prompt(nano_tokenizer) -> tuple[int, ...]:
    return tuple(encode_chat(nano_tokenizer, [Message("user", "What is 2+3?")], None))


def asked(prompt, name="r", priority=0, **sampling) -> GenerationRequest:
    return GenerationRequest(name, prompt, Sampling(**sampling), priority)


def generate(loop_thread, engine, request):
    return loop_thread.run(collect(engine.generate(request)))


def ids_of(deltas) -> list[int]:
    return [i for delta in deltas for i in delta.token_ids]


def test_info_names_kind_version_and_context(engine):
    info = engine.info
    assert info.kind in {"fake", "vllm", "remote"}
    assert info.version
    assert info.max_model_len >= 512


def test_ids_come_back_and_greedy_repeats(loop_thread, engine, prompt, nano_tokenizer):
    request = asked((*prompt, nano_tokenizer.tags.no_think), max_tokens=24, temperature=0.0)
    first, second = (ids_of(generate(loop_thread, engine, request)) for _ in range(2))
    assert first == second
    assert 1 <= len(first) <= 24
    assert all(0 <= i < nano_tokenizer.vocab_size for i in first)


@pytest.mark.parametrize("count", [1, 2, 33])
def test_max_tokens_is_exact_and_only_the_last_delta_has_a_reason(loop_thread, engine, prompt, count):
    deltas = generate(loop_thread, engine, asked(prompt, max_tokens=count, allowed_token_ids=(40,)))
    assert ids_of(deltas) == [40] * count
    assert [d.stop_reason for d in deltas] == [None] * (len(deltas) - 1) + [StopReason.LENGTH]


def test_the_stop_token_ends_the_sequence_and_is_part_of_it(loop_thread, engine, prompt, nano_tokenizer: ChatTokenizer):
    end = nano_tokenizer.turn_end_id
    deltas = generate(loop_thread, engine, asked(prompt, max_tokens=9, allowed_token_ids=(end,)))
    assert ids_of(deltas) == [end]
    assert deltas[-1].stop_reason is StopReason.STOP


def test_decide_returns_raw_log_probabilities_of_exactly_the_asked_ids(loop_thread, engine, prompt, nano_tokenizer):
    tags = (nano_tokenizer.tags.think, nano_tokenizer.tags.no_think)
    rows = []
    for temperature in (0.0, 1.0, 2.0):
        request = asked(
            prompt, max_tokens=1, temperature=temperature, seed=7, allowed_token_ids=tags, logprob_token_ids=tags
        )
        (delta,) = [d for d in generate(loop_thread, engine, request) if d.token_ids]
        assert delta.token_ids[0] in tags
        assert delta.logprobs is not None
        (row,) = delta.logprobs
        assert set(row) == set(tags)
        rows.append(row)
    masses = [sum(math.exp(row[tag]) for tag in tags) for row in rows]
    assert all(0 < mass <= 1 + 1e-5 for mass in masses)
    for row in rows[1:]:
        assert row == pytest.approx(rows[0], abs=1e-4), "temperature must not move raw log-probabilities"


def test_logprobs_line_up_with_ids_and_are_absent_when_not_asked(loop_thread, engine, prompt):
    asked_for = asked(prompt, max_tokens=5, allowed_token_ids=(40,), logprob_token_ids=(40, 41))
    for delta in generate(loop_thread, engine, asked_for):
        assert delta.logprobs is not None
        assert [set(row) for row in delta.logprobs] == [{40, 41}] * len(delta.token_ids)
    plain = generate(loop_thread, engine, asked(prompt, max_tokens=5, allowed_token_ids=(40,)))
    assert [d.logprobs for d in plain] == [None] * len(plain)


def test_concurrent_streams_do_not_mix(loop_thread, engine, prompt):
    async def all_at_once():
        requests = [
            asked(prompt, f"r{i}", priority=i % 2, max_tokens=20 + i, allowed_token_ids=(40 + i,)) for i in range(12)
        ]
        return await asyncio.gather(*(collect(engine.generate(r)) for r in requests))

    for i, deltas in enumerate(loop_thread.run(all_at_once())):
        assert ids_of(deltas) == [40 + i] * (20 + i)


def test_the_same_request_id_may_run_twice(loop_thread, engine, prompt):
    async def both():
        requests = [asked(prompt, "same", max_tokens=8, allowed_token_ids=(i,)) for i in (40, 41)]
        return await asyncio.gather(*(collect(engine.generate(r)) for r in requests))

    assert [ids_of(deltas) for deltas in loop_thread.run(both())] == [[40] * 8, [41] * 8]


def test_closing_the_stream_ends_the_request_and_the_engine_goes_on(loop_thread, engine, prompt):
    async def close_early():
        stream = engine.generate(asked(prompt, max_tokens=500, allowed_token_ids=(40,)))
        first = await anext(stream)
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        return first, await collect(engine.generate(asked(prompt, max_tokens=3, allowed_token_ids=(41,))))

    first, after = loop_thread.run(close_early())
    assert first.token_ids[0] == 40
    assert first.stop_reason is None
    assert ids_of(after) == [41] * 3


BAD = {
    "empty prompt": ((), {"max_tokens": 1}),
    "unknown id": ((10**6,), {"max_tokens": 1}),
    "negative id": ((-1,), {"max_tokens": 1}),
    "no tokens wanted": ((40,), {"max_tokens": 0}),
    "longer than the context": ((40,) * 1000, {"max_tokens": 25}),
}


@pytest.mark.parametrize(("ids", "sampling"), BAD.values(), ids=BAD.keys())
def test_a_bad_request_fails_alone(loop_thread, engine, prompt, ids, sampling):
    with pytest.raises(EngineError) as failure:
        generate(loop_thread, engine, asked(ids, **sampling))
    assert not isinstance(failure.value, EngineDeadError)
    assert loop_thread.run(engine.healthy())
    assert ids_of(generate(loop_thread, engine, asked(prompt, max_tokens=2, allowed_token_ids=(40,)))) == [40] * 2


def test_close_ends_running_streams_refuses_new_ones_and_is_idempotent(loop_thread, own_engine, prompt):
    async def close_while_streaming():
        stream = own_engine.generate(asked(prompt, max_tokens=900, allowed_token_ids=(40,)))
        await anext(stream)
        await own_engine.close()
        reasons = []
        try:
            reasons = [d.stop_reason async for d in stream]
        except EngineDeadError:
            reasons.append(StopReason.ABORT)
        return reasons

    assert loop_thread.run(own_engine.healthy())
    assert loop_thread.run(close_while_streaming())[-1] is StopReason.ABORT
    assert not loop_thread.run(own_engine.healthy())
    loop_thread.run(own_engine.close())
    with pytest.raises(EngineDeadError):
        generate(loop_thread, own_engine, asked(prompt, max_tokens=1))


@pytest.mark.parametrize("limit", [5, 40])
def test_stop_token_ids_end_the_sequence_and_are_part_of_it(
    loop_thread, engine, prompt, nano_tokenizer: ChatTokenizer, limit
):
    request = (*prompt, nano_tokenizer.tags.think)
    whole = ids_of(generate(loop_thread, engine, asked(request, max_tokens=limit, temperature=0.0)))
    stop = whole[2]
    deltas = generate(
        loop_thread,
        engine,
        asked(request, max_tokens=limit, temperature=0.0, stop_token_ids=(stop,)),
    )
    assert ids_of(deltas) == whole[: whole.index(stop) + 1]
    assert deltas[-1].stop_reason is StopReason.STOP
    unused = asked(request, max_tokens=5, temperature=0.0, stop_token_ids=(nano_tokenizer.tags.no_think_end,))
    assert ids_of(generate(loop_thread, engine, unused)) == whole[:5]


@pytest.mark.parametrize("top", [0, 1, 3])
def test_top_logprobs_hold_the_sampled_id_and_the_most_likely_ones(
    loop_thread, engine, prompt, nano_tokenizer: ChatTokenizer, top
):
    request = asked((*prompt, nano_tokenizer.tags.no_think), max_tokens=6, temperature=0.0, top_logprobs=top)
    deltas = generate(loop_thread, engine, request)
    assert ids_of(deltas)
    for delta in deltas:
        assert delta.logprobs is not None
        assert len(delta.logprobs) == len(delta.token_ids)
        for token, row in zip(delta.token_ids, delta.logprobs, strict=True):
            assert max(1, top) <= len(row) <= top + 1
            # Greedy: the sampled id is the most likely one.
            assert row[token] == max(row.values()) <= 1e-6


def test_a_bias_decides_and_is_not_seen_in_the_log_probabilities(loop_thread, engine, prompt):
    request = asked(prompt, max_tokens=4, temperature=0.0, logit_bias={40: 100.0}, top_logprobs=0)
    deltas = generate(loop_thread, engine, request)
    assert ids_of(deltas) == [40] * 4


GRAMMARS = {
    "choice": (Grammar("choice", '["yes", "no"]'), r"yes|no"),
    "json": (Grammar("json", '{"type": "object", "properties": {}, "additionalProperties": false}'), r"\{\s*\}"),
}


@pytest.mark.parametrize("name", GRAMMARS)
def test_a_grammar_is_followed_to_its_end(loop_thread, engine, prompt, nano_tokenizer: ChatTokenizer, name):
    grammar, pattern = GRAMMARS[name]
    request = asked((*prompt, nano_tokenizer.tags.no_think), max_tokens=40, grammar=grammar)
    *ids, last = ids_of(generate(loop_thread, engine, request))
    assert last == nano_tokenizer.turn_end_id
    assert re.fullmatch(pattern, nano_tokenizer.decode(ids))


@pytest.mark.parametrize("grammar", [Grammar("json", "{oops"), Grammar("regex", "(")])
def test_a_grammar_that_cannot_be_compiled_is_refused_and_fails_alone(loop_thread, engine, prompt, grammar):
    with pytest.raises(RequestRefusedError):
        generate(loop_thread, engine, asked(prompt, max_tokens=4, grammar=grammar))
    assert loop_thread.run(engine.healthy())
    assert ids_of(generate(loop_thread, engine, asked(prompt, max_tokens=2, allowed_token_ids=(40,)))) == [40] * 2


# Two calls of one session, the second behind the first: the same answers, whatever the engine holds in between.

NAMES = count()


def decide(prompt, tags, session=None, **fields) -> GenerationRequest:
    choices = (tags.think, tags.no_think)
    sampling = Sampling(max_tokens=1, temperature=0.0, allowed_token_ids=choices, logprob_token_ids=choices)
    return GenerationRequest(f"d{next(NAMES)}", prompt, sampling, priority=1, session_id=session, keep=True, **fields)


def answer(prompt, session=None, **sampling) -> GenerationRequest:
    return GenerationRequest(f"a{next(NAMES)}", prompt, Sampling(**sampling), session_id=session)


def rows_of(deltas) -> list[set[int]]:
    return [set(row) for delta in deltas for row in delta.logprobs or ()]


WANTED = {
    "plain": {"max_tokens": 40, "temperature": 0.0},
    "one token": {"max_tokens": 1, "temperature": 0.0},
    "stopped": {"max_tokens": 40, "temperature": 0.0, "stop_token_ids": (262,)},
    "biased": {"max_tokens": 7, "temperature": 0.0, "logit_bias": {40: 100.0}},
    "only one id": {"max_tokens": 7, "allowed_token_ids": (40,)},
    "penalised": {"max_tokens": 20, "temperature": 0.0, "presence_penalty": 1.5, "repetition_penalty": 1.3},
    "seeded": {"max_tokens": 20, "temperature": 1.0, "seed": 5},
    "greedy with a seed": {"max_tokens": 20, "temperature": 0.0, "seed": 5},
    "log-probabilities": {"max_tokens": 5, "temperature": 0.0, "top_logprobs": 2},
    "of some ids": {"max_tokens": 5, "temperature": 0.0, "logprob_token_ids": (40, 41)},
    "a grammar": {"max_tokens": 9, "temperature": 0.0, "grammar": Grammar("choice", '["maybe"]')},
}


@pytest.mark.parametrize("mode", ["think", "no_think", "thought"])
@pytest.mark.parametrize("sampling", WANTED.values(), ids=WANTED.keys())
def test_what_follows_a_kept_call_is_what_a_call_alone_gives(
    loop_thread, engine, prompt, nano_tokenizer, sampling, mode
):
    tags = nano_tokenizer.tags
    following = {"think": (tags.think,), "no_think": (tags.no_think,), "thought": (tags.think, 45, 46, tags.think_end)}
    whole = (*prompt, *following[mode])

    async def in_a_session():
        name = f"s{next(NAMES)}"
        decided = await collect(engine.generate(decide(prompt, tags, name)))
        answered = await collect(engine.generate(answer(whole, name, **sampling)))
        await engine.release(name)
        return decided, answered

    decided, answered = loop_thread.run(in_a_session())
    alone = loop_thread.run(collect(engine.generate(decide(prompt, tags))))
    expected = loop_thread.run(collect(engine.generate(answer(whole, **sampling))))
    assert ids_of(decided) == ids_of(alone)
    assert decided[-1].stop_reason is StopReason.LENGTH
    for tag, value in decided[0].logprobs[0].items():
        assert alone[0].logprobs[0][tag] == pytest.approx(value, abs=0.03)
    assert ids_of(answered) == ids_of(expected)
    assert answered[-1].stop_reason is expected[-1].stop_reason
    assert rows_of(answered) == rows_of(expected)


@pytest.mark.parametrize("other", ["another prompt", "the same prompt", "another session"])
def test_a_call_that_does_not_go_on_behind_the_kept_one_is_a_call_of_its_own(
    loop_thread, engine, prompt, nano_tokenizer, other
):
    tags = nano_tokenizer.tags
    ids = {"another prompt": (*prompt[:-3], 40, 41), "the same prompt": prompt}.get(other, (*prompt, tags.think))

    async def both():
        await collect(engine.generate(decide(prompt, tags, "kept")))
        name = "other" if other == "another session" else "kept"
        answered = await collect(engine.generate(answer(ids, name, max_tokens=12, temperature=0.0)))
        await engine.release("kept")
        return answered, await collect(engine.generate(answer(ids, max_tokens=12, temperature=0.0)))

    answered, expected = loop_thread.run(both())
    assert ids_of(answered) == ids_of(expected)


def test_only_the_first_call_behind_a_kept_one_goes_on_from_it(loop_thread, engine, prompt, nano_tokenizer):
    tags = nano_tokenizer.tags

    async def several():
        await collect(engine.generate(decide(prompt, tags, "several")))
        calls = [answer((*prompt, tags.think), "several", max_tokens=20, temperature=0.0) for _ in range(4)]
        answers = await asyncio.gather(*(collect(engine.generate(call)) for call in calls))
        await engine.release("several")
        return [ids_of(deltas) for deltas in answers]

    answers = loop_thread.run(several())
    assert answers == [answers[0]] * 4
    assert len(answers[0]) > 3


def test_a_release_ends_what_is_held_once_or_twice_or_where_nothing_is(loop_thread, engine, prompt, nano_tokenizer):
    async def released():
        await engine.release("never heard of")
        for _ in range(100):
            await collect(engine.generate(decide(prompt, nano_tokenizer.tags, "released")))
            await engine.release("released")
            await engine.release("released")
        whole = (*prompt, nano_tokenizer.tags.no_think)
        return await collect(engine.generate(answer(whole, "released", max_tokens=3, allowed_token_ids=(40,))))

    # More often than the engine has places: a session that stayed would take one for ever.
    assert ids_of(loop_thread.run(released())) == [40] * 3


def test_closing_either_call_early_leaves_the_engine_serving(loop_thread, engine, prompt, nano_tokenizer):
    tags = nano_tokenizer.tags

    async def closed_early():
        for name in (f"early{i}" for i in range(70)):
            async with aclosing(engine.generate(decide(prompt, tags, name))) as deltas:
                await anext(deltas)
            call = answer((*prompt, tags.think), name, max_tokens=400, allowed_token_ids=(40,))
            async with aclosing(engine.generate(call)) as deltas:
                assert (await anext(deltas)).token_ids[0] == 40
            await engine.release(name)
        return await collect(engine.generate(answer(prompt, max_tokens=3, allowed_token_ids=(41,))))

    assert ids_of(loop_thread.run(closed_early())) == [41] * 3


def test_a_second_call_that_the_engine_refuses_fails_alone(loop_thread, engine, prompt, nano_tokenizer):
    async def refused():
        await collect(engine.generate(decide(prompt, nano_tokenizer.tags, "refused")))
        with pytest.raises(EngineError):
            await collect(engine.generate(answer((*prompt, 40), "refused", max_tokens=10**6)))
        with pytest.raises(EngineError):
            await collect(engine.generate(answer((*prompt, 10**6), "refused", max_tokens=1)))
        await engine.release("refused")
        return await collect(engine.generate(answer(prompt, max_tokens=3, allowed_token_ids=(41,))))

    assert ids_of(loop_thread.run(refused())) == [41] * 3


def test_many_sessions_at_once_do_not_mix_and_leave_room_for_others(loop_thread, engine, prompt, nano_tokenizer):
    tags = nano_tokenizer.tags

    async def session(number):
        name = f"many{number}"
        await collect(engine.generate(decide(prompt, tags, name)))
        if number % 5 == 0:
            await engine.release(name)
        call = answer((*prompt, tags.think), name, max_tokens=10 + number % 7, allowed_token_ids=(40 + number % 50,))
        deltas = await collect(engine.generate(call))
        await engine.release(name)
        return ids_of(deltas)

    async def all_at_once():
        return await asyncio.gather(*(session(number) for number in range(200)))

    for number, ids in enumerate(loop_thread.run(all_at_once())):
        assert ids == [40 + number % 50] * (10 + number % 7)


def test_an_engine_that_closes_takes_what_it_holds_with_it(loop_thread, own_engine, prompt, nano_tokenizer):
    async def closed():
        await collect(own_engine.generate(decide(prompt, nano_tokenizer.tags, "held")))
        await own_engine.close()
        await own_engine.release("held")

    loop_thread.run(closed())
    assert not loop_thread.run(own_engine.healthy())
