"""The remote engine on a real ``vllm serve``, and the scripted server of the other tests held against it."""

import asyncio
import json
import math
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from conftest import collect
from fake_vllm import FakeVllm
from lhrm_server.engine import EngineError, EngineUnreachableError, Grammar, RequestRefusedError, StopReason
from lhrm_server.event_stream import EventDecoder
from process_tree import descendants, gone
from remote_fixtures import SERVE_ARGUMENTS, asked, fake_vllm, free_port, listening, remote_engine, vllm_serve

from lhrm_train.format import Message, Mode, encode_chat

pytestmark = pytest.mark.vllm_serve

QUESTIONS = ["What is 2+3?", "What is the capital of France?", "What is 48371+92615?", "Hello! Who are you?"]


@pytest.fixture(scope="module")
def remote(loop_thread, nano_tokenizer, vllm_server):
    engine = remote_engine(vllm_server, nano_tokenizer)
    loop_thread.run(engine.start())
    yield engine
    loop_thread.run(engine.close())


def prompt_of(tokenizer, question: str, mode: Mode | None = Mode.NO_THINK) -> tuple[int, ...]:
    return tuple(encode_chat(tokenizer, [Message("user", question)], mode))


@pytest.fixture
def ask(loop_thread, remote, nano_tokenizer):
    """Return the deltas of one call to the remote engine."""
    prompt = prompt_of(nano_tokenizer, "Hello! Who are you?", Mode.THINK)

    def call(**sampling):
        return loop_thread.run(collect(remote.generate(asked(prompt, **{"max_tokens": 16, **sampling}))))

    return call


def ids_of(deltas) -> list[int]:
    return [i for delta in deltas for i in delta.token_ids]


@pytest.mark.parametrize("question", QUESTIONS)
def test_remote_and_embedded_give_the_same(loop_thread, remote, vllm_engine, nano_tokenizer, question):
    tags = (nano_tokenizer.tags.think, nano_tokenizer.tags.no_think)
    decide = asked(
        prompt_of(nano_tokenizer, question, None), max_tokens=1, allowed_token_ids=tags, logprob_token_ids=tags
    )
    rows = [loop_thread.run(collect(e.generate(decide)))[0].logprobs[0] for e in (remote, vllm_engine)]
    assert rows[0] == pytest.approx(rows[1], abs=0.05)
    generate = asked(prompt_of(nano_tokenizer, question), max_tokens=24)
    answers = [loop_thread.run(collect(e.generate(generate))) for e in (remote, vllm_engine)]
    assert ids_of(answers[0]) == ids_of(answers[1])
    assert answers[0][-1].stop_reason is answers[1][-1].stop_reason


def test_an_unset_temperature_follows_the_checkpoint(ask):
    assert ids_of(ask()) == ids_of(ask()) == ids_of(ask(temperature=0.0))


def test_a_seed_repeats_and_another_seed_differs(ask):
    first, same, *others = (ids_of(ask(temperature=2.0, seed=seed)) for seed in (11, 11, 12, 13, 14))
    assert first == same
    assert any(other != first for other in others)


def test_a_bias_moves_what_is_generated(ask):
    assert ids_of(ask(logit_bias={77: 100.0}, max_tokens=4)) == [77] * 4


def test_a_stop_id_of_the_request_ends_the_sequence_and_is_part_of_it(ask):
    free = ids_of(ask())
    place = next(i for i in range(2, len(free)) if free[i] not in free[:i])
    stopped = ask(stop_token_ids=(free[place],))
    assert ids_of(stopped) == free[: place + 1]
    assert stopped[-1].stop_reason is StopReason.STOP


def test_top_log_probabilities_hold_the_sampled_id_and_are_raw(ask):
    for delta in ask(top_logprobs=5, temperature=2.0, seed=1):
        for token, row in zip(delta.token_ids, delta.logprobs, strict=True):
            assert token in row
            assert 5 <= len(row) <= 6
            assert sum(math.exp(value) for value in row.values()) <= 1.01
    for delta in ask(top_logprobs=0):
        assert [list(row) for row in delta.logprobs] == [[token] for token in delta.token_ids]


def test_a_choice_binds_the_answer(ask, nano_tokenizer):
    ids = ids_of(ask(grammar=Grammar("choice", '["blue", "red"]')))
    assert nano_tokenizer.decode([i for i in ids if i != nano_tokenizer.turn_end_id]) in {"blue", "red"}


def test_a_schema_binds_the_answer(ask, nano_tokenizer):
    ids = ids_of(ask(grammar=Grammar("json", '{"enum": ["blue", 7]}')))
    assert json.loads(nano_tokenizer.decode([i for i in ids if i != nano_tokenizer.turn_end_id])) in {"blue", 7}


def test_a_regular_expression_binds_the_answer(ask, nano_tokenizer):
    ids = ids_of(ask(grammar=Grammar("regex", "7-[ab]{3}")))
    answer = nano_tokenizer.decode([i for i in ids if i != nano_tokenizer.turn_end_id])
    assert re.fullmatch("7-[ab]{3}", answer)


def test_an_ebnf_grammar_binds_the_answer(ask, nano_tokenizer):
    ids = ids_of(ask(grammar=Grammar("grammar", 'root ::= "yes" | "no"')))
    assert nano_tokenizer.decode([i for i in ids if i != nano_tokenizer.turn_end_id]) in {"yes", "no"}


def test_a_grammar_that_cannot_be_compiled_is_refused(ask):
    with pytest.raises(RequestRefusedError):
        ask(grammar=Grammar("regex", "(((("))


def running(url: str) -> float:
    found = re.search(r"^vllm:num_requests_running\{.*\} (\S+)$", httpx.get(f"{url}/metrics").text, re.MULTILINE)
    assert found
    return float(found[1])


def test_closing_streams_aborts_them_in_the_server(loop_thread, remote, vllm_server, nano_tokenizer):
    prompt = prompt_of(nano_tokenizer, "What is 2+3?")

    async def fill_and_close():
        streams = [remote.generate(asked(prompt, f"f{i}", max_tokens=900, allowed_token_ids=(40,))) for i in range(16)]
        await asyncio.gather(*(anext(stream) for stream in streams))
        full = await settled(vllm_server, lambda count: count == 16)
        await asyncio.gather(*(stream.aclose() for stream in streams))
        return full, await settled(vllm_server, lambda count: count == 0)

    assert loop_thread.run(fill_and_close()) == (16, 0)


async def settled(url: str, wanted) -> float:
    """Return the number of running requests once it is as wanted, or what it is after two seconds."""
    for _ in range(40):
        count = await asyncio.to_thread(running, url)
        if wanted(count):
            break
        await asyncio.sleep(0.05)
    return count


@asynccontextmanager
async def both_servers(real: str, tokenizer) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient, FakeVllm]]:
    server = fake_vllm(tokenizer)
    async with (
        listening(server) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as scripted,
        httpx.AsyncClient(base_url=real, timeout=30) as true,
    ):
        yield scripted, true, server


def shape(value: object) -> object:
    """Return keys and types; a list counts by its first entry, log-probability names by their prefix."""
    if isinstance(value, dict):
        return {re.sub(r"^token_id:\d+$", "token_id", key): shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


CALLS = {
    "health": ("GET", "/health", None),
    "version": ("GET", "/version", None),
    "tokenize": ("POST", "/tokenize", {"model": "lhrm-nano", "prompt": "a", "add_special_tokens": False}),
    "tokenize with another model": ("POST", "/tokenize", {"model": "x", "prompt": "a"}),
    "complete with another model": ("POST", "/v1/completions", {"model": "x", "prompt": [40], "stream": True}),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_scripted_server_answers_as_the_real_one(loop_thread, vllm_server, nano_tokenizer, name):
    method, path, body = CALLS[name]

    async def compare():
        async with both_servers(vllm_server, nano_tokenizer) as (scripted, true, _):
            fake, real = [await client.request(method, path, json=body) for client in (scripted, true)]
        assert fake.status_code == real.status_code
        assert fake.headers.get("content-type") == real.headers.get("content-type")
        if real.content:
            assert shape(fake.json()) == shape(real.json())

    loop_thread.run(compare())


def test_the_scripted_list_of_models_has_the_real_fields(loop_thread, vllm_server, nano_tokenizer):
    async def compare():
        async with both_servers(vllm_server, nano_tokenizer) as (scripted, true, _):
            fake, real = [(await client.get("/v1/models")).json()["data"][0] for client in (scripted, true)]
        assert {key: shape(fake[key]) for key in fake if key != "permission"} == {
            key: shape(real[key]) for key in real if key != "permission"
        }
        assert fake["id"] == real["id"]
        assert fake["max_model_len"] == real["max_model_len"]

    loop_thread.run(compare())


STREAMS = {
    "answer": {"max_tokens": 3},
    "decide": {"max_tokens": 1, "allowed_token_ids": [3, 5], "logprob_token_ids": [3, 5], "logprobs": 2},
    "unknown id": {"prompt": [10**6], "max_tokens": 1},
    "negative id": {"prompt": [-1], "max_tokens": 1},
    "no tokens": {"max_tokens": 0},
    "empty prompt": {"prompt": [], "max_tokens": 1},
    "more than the context": {"prompt": [40] * 2000, "max_tokens": 1},
    "more than is left": {"prompt": [40] * 1000, "max_tokens": 100, "allowed_token_ids": [40]},
}


@pytest.mark.parametrize("name", STREAMS)
def test_the_scripted_streams_have_the_real_shapes(loop_thread, vllm_server, nano_tokenizer, name):
    body = completion(nano_tokenizer, STREAMS[name], stream=True)

    async def compare():
        async with both_servers(vllm_server, nano_tokenizer) as (scripted, true, _):
            replies = [await client.post("/v1/completions", json=body) for client in (scripted, true)]
        fake, real = (EventDecoder().feed(reply.content) for reply in replies)
        assert replies[0].status_code == replies[1].status_code
        if not real:
            told = [{**reply.json()["error"], "message": ""} for reply in replies]
            assert told[0] == told[1]
            return
        assert fake[-1] == real[-1] == b"[DONE]"
        first, last = [[json.loads(events[i]) for events in (fake, real)] for i in (0, -2)]
        assert comparable(first[0]) == comparable(first[1])
        assert comparable(last[0]) == comparable(last[1])

    loop_thread.run(compare())


@pytest.mark.parametrize("name", STREAMS)
def test_the_scripted_answers_without_a_stream_have_the_real_shapes(loop_thread, vllm_server, nano_tokenizer, name):
    body = completion(nano_tokenizer, STREAMS[name], stream=False)

    async def compare():
        async with both_servers(vllm_server, nano_tokenizer) as (scripted, true, _):
            replies = [await client.post("/v1/completions", json=body) for client in (scripted, true)]
        fake, real = [reply.json() for reply in replies]
        assert replies[0].status_code == replies[1].status_code
        assert ("error" in fake) == ("error" in real)
        if "error" in real:
            assert {**fake["error"], "message": ""} == {**real["error"], "message": ""}
            return
        # The real one has more fields, which the engine does not read.
        shown, given = comparable(fake)[1], comparable(real)[1]
        assert shown == {key: given[key] for key in shown}

    loop_thread.run(compare())


def completion(tokenizer, fields: dict, *, stream: bool) -> dict:
    return {
        "model": "lhrm-nano",
        "prompt": list(prompt_of(tokenizer, "What is 2+3?", None)),
        "stream": stream,
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
        "stop_token_ids": [tokenizer.turn_end_id],
        "temperature": 0.0,
        **fields,
    }


def comparable(event: dict) -> object:
    """Return the shape of an event, less what depends on the answer itself."""
    if "error" in event:
        return event.keys(), event["error"]["code"], event["error"]["type"]
    (choice,) = event.pop("choices")
    for name in ("finish_reason", "stop_reason"):
        choice.pop(name)
    return shape(event), shape(choice)


def test_a_killed_server_is_told_apart_and_used_again_once_it_is_back(loop_thread, nano_tokenizer, tmp_path):
    """Started with a key and without priorities: the first is asked for, the second goes unnoticed in vLLM 0.32."""
    arguments, port = [*SERVE_ARGUMENTS[2:], "--api-key", "sk-real"], free_port()
    request = asked(prompt_of(nano_tokenizer, "What is 2+3?"), priority=1, max_tokens=900, allowed_token_ids=(40,))
    with vllm_serve(tmp_path / "first", arguments, port) as server:
        with pytest.raises(EngineError, match="refuses the API key"):
            loop_thread.run(remote_engine(server.url, nano_tokenizer).start())
        engine = remote_engine(server.url, nano_tokenizer, api_key="sk-real")
        loop_thread.run(engine.start())
        processes = [server.process.pid, *descendants(server.process.pid)]

        async def kill_mid_stream():
            stream = engine.generate(request)
            await anext(stream)
            for process in processes:
                os.kill(process, signal.SIGKILL)
            with pytest.raises(EngineError, match="closed the stream before the end"):
                await collect(stream)
            with pytest.raises(EngineUnreachableError, match="nothing answers"):
                await collect(engine.generate(request))
            return await engine.healthy()

        assert loop_thread.run(kill_mid_stream()) is False
        assert gone(*processes)
    with vllm_serve(tmp_path / "second", arguments, port):
        assert loop_thread.run(engine.healthy())
        assert ids_of(loop_thread.run(collect(engine.generate(request)))) == [40] * 900
    loop_thread.run(engine.close())
