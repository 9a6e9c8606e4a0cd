"""The remote engine beyond the shared contract, on a scripted server: errors told apart, recovery, aborts."""

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import NANO, collect
from fake_vllm import error
from gateway_fixtures import CHAT, think, until
from lhrm_server.app import create_app
from lhrm_server.engine import (
    Engine,
    EngineDeadError,
    EngineError,
    EngineOverloadedError,
    EngineTimeoutError,
    EngineUnreachableError,
    GenerationRequest,
    RequestRefusedError,
    Sampling,
    StopReason,
)
from lhrm_server.engine_fake import FakeEngine, Script
from lhrm_server.engine_remote import RemoteOptions, make_remote_engine
from lhrm_server.remote_place import Timeouts
from lhrm_server.settings import Settings
from remote_fixtures import asked, fake_vllm, listening, pair, remote_engine
from starlette.responses import PlainTextResponse, Response

from lhrm_train.format import Message, Mode, encode_chat

COMPLETIONS = "/v1/completions"


@pytest.fixture
def prompt(nano_tokenizer) -> tuple[int, ...]:
    return tuple(encode_chat(nano_tokenizer, [Message("user", "What is 2+3?")], Mode.NO_THINK))


def ids_of(deltas) -> list[int]:
    return [i for delta in deltas for i in delta.token_ids]


async def until_failure(stream) -> tuple[list[int], EngineError]:
    """Return what came before the failure, and the failure."""
    got: list[int] = []
    try:
        async for delta in stream:
            got += delta.token_ids
    except EngineError as exc:
        return got, exc
    pytest.fail("the stream ended without a failure")


async def test_the_call_carries_ids_defaults_priority_and_names(nano_tokenizer, prompt):
    async with pair(nano_tokenizer) as both:
        request = GenerationRequest("chatcmpl-1-generate", prompt, Sampling(max_tokens=9), 1, "chatcmpl-1")
        deltas = await collect(both.engine.generate(request))
    (body,), (headers,) = both.server.bodies, both.server.headers
    assert deltas[-1].stop_reason is StopReason.LENGTH
    assert body["prompt"] == list(prompt)
    assert (body["max_tokens"], body["stream"], body["priority"], body["model"]) == (9, True, 1, "lhrm-nano")
    assert body["temperature"] == 0.0, "the nano's generation_config.json asks for greedy decoding"
    assert body["stop_token_ids"] == [nano_tokenizer.turn_end_id]
    assert headers["x-request-id"] == "chatcmpl-1-generate"
    assert headers["x-session-id"] == "chatcmpl-1"
    assert "authorization" not in headers


async def test_the_key_goes_with_every_guarded_call(nano_tokenizer, prompt):
    server = fake_vllm(nano_tokenizer)
    server.api_key = "sk-secret"
    async with listening(server) as url:
        engine = remote_engine(url, nano_tokenizer, api_key="sk-secret")
        await engine.start()
        assert await collect(engine.generate(asked(prompt, max_tokens=2)))
        await engine.close()
        without = remote_engine(url, nano_tokenizer)
        with pytest.raises(EngineError, match=r"refuses the API key \(401: Unauthorized\)"):
            await without.start()


REFUSED = {
    400: (RequestRefusedError, "max_tokens is odd"),
    422: (RequestRefusedError, "max_tokens is odd"),
    404: (EngineError, "does not know the model"),
    500: (EngineError, "the engine failed"),
    502: (EngineUnreachableError, "nothing answers behind"),
    504: (EngineTimeoutError, "took too long"),
}


@pytest.mark.parametrize("status", REFUSED)
async def test_a_status_becomes_its_error_and_is_not_repeated(nano_tokenizer, prompt, status):
    kind, words = REFUSED[status]
    async with pair(nano_tokenizer) as both:
        both.server.answers[COMPLETIONS] = error("max_tokens is odd", status, "SomeError")
        with pytest.raises(EngineError, match=words) as failure:
            await collect(both.engine.generate(asked(prompt, max_tokens=2)))
        assert type(failure.value) is kind
        assert len(both.server.bodies) == 1
        del both.server.answers[COMPLETIONS]
        assert ids_of(await collect(both.engine.generate(asked(prompt, max_tokens=2))))


@pytest.mark.parametrize(
    ("status", "headers", "calls", "advice"),
    [(503, {}, 3, None), (503, {"Retry-After": "7"}, 1, 7.0), (429, {}, 1, None), (429, {"Retry-After": "2"}, 1, 2.0)],
)
async def test_no_room_is_told_with_the_engines_advice(nano_tokenizer, prompt, status, headers, calls, advice):
    async with pair(nano_tokenizer) as both:
        full = error("the queue is full", status, "ServiceUnavailableError")
        full.headers.update(headers)
        both.server.answers[COMPLETIONS] = full
        with pytest.raises(EngineOverloadedError, match="the queue is full") as failure:
            await collect(both.engine.generate(asked(prompt, max_tokens=2)))
        assert failure.value.retry_after_s == advice
        assert len(both.server.bodies) == calls
        assert await both.engine.healthy(), "a full engine is not a broken one"


async def test_room_that_comes_in_time_is_used(nano_tokenizer, prompt):
    async with pair(nano_tokenizer) as both:
        both.server.answers[COMPLETIONS] = error("full", 503, "x")
        call = asyncio.create_task(collect(both.engine.generate(asked(prompt, max_tokens=2, allowed_token_ids=(40,)))))
        await until(lambda: both.server.bodies)
        del both.server.answers[COMPLETIONS]
        assert ids_of(await call) == [40, 40]
        assert len(both.server.bodies) == 2


async def test_an_error_event_after_some_tokens_is_an_engine_error(nano_tokenizer, prompt):
    async with pair(nano_tokenizer, Script(no_think_ids=tuple(range(40, 60)), fail_at=3)) as both:
        got, failure = await until_failure(both.engine.generate(asked(prompt, max_tokens=20)))
        assert type(failure) is EngineError
        assert "scripted failure" in str(failure)
        assert got == [40, 41, 42]


@pytest.mark.parametrize(
    ("tokens", "kind", "wanted"),
    [
        (2, "text/html", "text/event-stream"),
        (2, "application/json", "text/event-stream"),
        (1, "text/html", "application/json"),
        (1, "text/event-stream", "application/json"),
    ],
)
async def test_a_response_of_another_kind_is_an_error(nano_tokenizer, prompt, tokens, kind, wanted):
    async with pair(nano_tokenizer) as both:
        both.server.answers[COMPLETIONS] = Response("{}", media_type=kind)
        with pytest.raises(EngineError, match=f"answers with {kind}.* in place of {wanted}"):
            await collect(both.engine.generate(asked(prompt, max_tokens=tokens)))


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"choices": []}', '{"choices": [{"finish_reason": null}]}'])
async def test_a_decision_without_an_end_is_an_engine_error(nano_tokenizer, prompt, content):
    async with pair(nano_tokenizer) as both:
        both.server.answers[COMPLETIONS] = Response(content, media_type="application/json")
        with pytest.raises(EngineError):
            await collect(both.engine.generate(asked(prompt, max_tokens=1)))


async def test_an_endless_decision_is_an_engine_error(nano_tokenizer, prompt, monkeypatch):
    monkeypatch.setattr("lhrm_server.remote_link.LONGEST_EVENT_BYTES", 1000)
    async with pair(nano_tokenizer) as both:
        both.server.answers[COMPLETIONS] = Response("x" * 2000, media_type="application/json")
        with pytest.raises(EngineError, match="sent more than 1000 bytes in one answer"):
            await collect(both.engine.generate(asked(prompt, max_tokens=1)))


HANGS = {
    "no first event": (Script(hang_at=0), Timeouts(first_event_s=0.2), 0),
    "silence between events": (Script(hang_at=2), Timeouts(idle_s=0.2), 2),
    "too long in all": (Script(delay_s=0.05), Timeouts(total_s=0.4), 3),
}


@pytest.mark.parametrize("name", HANGS)
async def test_a_slow_engine_is_a_time_out_and_loses_the_request(nano_tokenizer, prompt, name):
    script, timeouts, least = HANGS[name]
    async with pair(nano_tokenizer, script, timeouts=timeouts) as both:
        started = time.monotonic()
        got, failure = await until_failure(both.engine.generate(asked(prompt, max_tokens=900)))
        assert isinstance(failure, EngineTimeoutError)
        assert time.monotonic() - started < 3
        assert len(got) >= least
        await until(lambda: both.server.engine.aborted == 1)
        assert both.server.engine.active == 0


async def test_a_slow_reader_is_no_slow_engine(nano_tokenizer, prompt):
    timeouts = Timeouts(first_event_s=0.5, idle_s=0.2)
    async with pair(nano_tokenizer, timeouts=timeouts) as both:
        got = []
        async for delta in both.engine.generate(asked(prompt, max_tokens=3, allowed_token_ids=(40,))):
            got += delta.token_ids
            await asyncio.sleep(0.3)
        assert got == [40] * 3


async def test_closing_the_generator_aborts_the_request_in_the_server(nano_tokenizer, prompt):
    async with pair(nano_tokenizer, Script(no_think_ids=(40, 41, 42), hang_at=2)) as both:
        stream = both.engine.generate(asked(prompt, max_tokens=9))
        assert (await anext(stream)).token_ids == (40,)
        await stream.aclose()
        await until(lambda: both.server.engine.aborted == 1)
        assert both.server.engine.hanging == 0


async def test_a_cancelled_reader_aborts_the_request_in_the_server(nano_tokenizer, prompt):
    async with pair(nano_tokenizer, Script(hang_at=0)) as both:
        reader = asyncio.create_task(collect(both.engine.generate(asked(prompt, max_tokens=9))))
        await until(lambda: both.server.engine.hanging == 1)
        reader.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reader
        await until(lambda: both.server.engine.aborted == 1)
        assert ids_of(await collect(both.engine.generate(asked(prompt, max_tokens=2, allowed_token_ids=(40,))))) == [
            40,
            40,
        ]


async def test_connections_are_used_again(nano_tokenizer, prompt):
    async with pair(nano_tokenizer) as both:
        for tokens in (2, 1) * 3:
            await collect(both.engine.generate(asked(prompt, max_tokens=tokens)))
        assert len(both.server.peers) >= 6
        assert len(set(both.server.peers)) == 1


async def test_close_while_streaming_and_while_waiting(nano_tokenizer, prompt):
    async with pair(nano_tokenizer, Script(hang_at=1)) as both:
        waiting = [asyncio.create_task(collect(both.engine.generate(asked(prompt, max_tokens=9)))) for _ in range(3)]
        await until(lambda: both.server.engine.hanging == 3)
        await both.engine.close()
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(outcome, EngineDeadError)
        await until(lambda: both.server.engine.aborted == 3)
        assert not await both.engine.healthy()


async def test_a_server_that_went_away_is_unreachable_until_it_is_back(nano_tokenizer, prompt, caplog):
    caplog.set_level(logging.INFO, "lhrm_server")
    request = asked(prompt, max_tokens=2, allowed_token_ids=(40,))
    async with listening(fake_vllm(nano_tokenizer)) as url:
        engine = remote_engine(url, nano_tokenizer)
        await engine.start()
        assert await engine.healthy()
    with pytest.raises(EngineUnreachableError, match="nothing answers at"):
        await collect(engine.generate(request))
    assert not await engine.healthy()
    async with listening(fake_vllm(nano_tokenizer), port=int(url.rpartition(":")[2])):
        assert ids_of(await collect(engine.generate(request))) == [40, 40]
        assert await engine.healthy()
        assert "serves lhrm-nano again" in caplog.text
        await engine.close()


async def test_health_notices_the_loss_and_the_return_by_itself(nano_tokenizer, monkeypatch):
    monkeypatch.setattr("lhrm_server.engine_remote.HEALTH_TTL_S", 0.0)
    async with pair(nano_tokenizer) as both:
        both.server.answers["/health"] = Response(status_code=503)
        assert not await both.engine.healthy()
        both.server.answers["/health"] = PlainTextResponse("", 200)
        assert await both.engine.healthy()


async def test_a_server_too_busy_for_its_health_still_gets_requests(nano_tokenizer, prompt, monkeypatch, caplog):
    monkeypatch.setattr("lhrm_server.engine_remote.HEALTH_TTL_S", 0.0)
    async with pair(nano_tokenizer, timeouts=Timeouts(health_s=0.1)) as both:
        both.server.slow_health_s = 5
        with caplog.at_level(logging.WARNING, "lhrm_server"):
            assert not await both.engine.healthy()
            assert not await both.engine.healthy()
        assert caplog.text.count("is not healthy: no answer within 0.1 s") == 1
        assert ids_of(await collect(both.engine.generate(asked(prompt, max_tokens=1, allowed_token_ids=(40,))))) == [40]
        assert "/v1/models" not in both.server.paths
        both.server.slow_health_s = 0
        assert await both.engine.healthy()


async def test_health_is_asked_at_most_once_a_second(nano_tokenizer):
    async with pair(nano_tokenizer) as both:
        assert all(await asyncio.gather(*(both.engine.healthy() for _ in range(50))))
        assert both.server.paths.count("/health") <= 1


async def test_another_model_at_the_same_place_gets_no_request(nano_tokenizer, prompt):
    """The server comes back with another vocabulary: no prompt may reach it."""
    async with pair(nano_tokenizer, Script(no_think_ids=(40, 41), fail_at=1)) as both:
        with pytest.raises(EngineError):
            await collect(both.engine.generate(asked(prompt, max_tokens=2)))
        calls = len(both.server.bodies)
        both.server.tokenizer = Shifted(nano_tokenizer)
        for _ in range(2):
            with pytest.raises(EngineError, match="another vocabulary"):
                await collect(both.engine.generate(asked(prompt, max_tokens=2)))
        assert not await both.engine.healthy()
        assert len(both.server.bodies) == calls
        both.server.tokenizer = nano_tokenizer
        assert ids_of(await collect(both.engine.generate(asked(prompt, max_tokens=1)))) == [40]


class Shifted:
    """A tokenizer whose ids are one higher."""

    def __init__(self, tokenizer) -> None:
        self._tokenizer = tokenizer

    def encode_template(self, text: str) -> list[int]:
        return [i + 1 for i in self._tokenizer.encode_template(text)]

    def decode(self, ids) -> str:
        return str(self._tokenizer.decode(ids))


async def test_the_calls_that_wait_for_a_lost_server_share_one_check(nano_tokenizer, prompt):
    async with pair(nano_tokenizer) as both:
        both.engine._doubt()
        await asyncio.gather(*(collect(both.engine.generate(asked(prompt, max_tokens=1))) for _ in range(20)))
        assert both.server.paths.count("/v1/models") == 1


async def test_messages_hold_neither_key_nor_prompt(nano_tokenizer, prompt, caplog):
    caplog.set_level(logging.DEBUG, "lhrm_server")
    options = RemoteOptions("http://127.0.0.1:9", api_key="sk-secret")
    assert "sk-secret" not in repr(options)
    async with pair(nano_tokenizer, Script(fail_at=1), api_key="sk-secret") as both:
        with pytest.raises(EngineError) as failure:
            await collect(both.engine.generate(asked(prompt, max_tokens=4)))
        assert "sk-secret" not in repr(failure.value)
    assert "sk-secret" not in caplog.text
    assert "2+3" not in caplog.text


async def test_a_gateway_over_it_answers_as_over_the_engine_itself(nano_tokenizer):
    """The same script behind HTTP and without: the same answers, counts and decisions."""
    script = Script(p_think=0.8, tag_mass=0.9, think_ids=think(nano_tokenizer, "naïve 思考 🤔", "5 ✓"))
    direct = FakeEngine(nano_tokenizer, script, max_model_len=1024)
    await direct.start()
    async with pair(nano_tokenizer, script) as both:
        replies = [await chat_through(engine, nano_tokenizer) for engine in (direct, both.engine)]
    for reply in replies:
        assert reply["choices"][0]["message"]["content"] == "5 ✓"
        assert reply["choices"][0]["message"]["reasoning"] == "naïve 思考 🤔"
        assert reply["lhrm"]["mode"] == "think"
        assert reply["lhrm"]["p_think"] == pytest.approx(0.8)
    assert replies[0]["usage"] == replies[1]["usage"]


async def chat_through(engine: Engine, tokenizer) -> dict[str, Any]:
    """Return what a gateway over `engine` answers."""
    app = create_app(Settings("m"), engine, tokenizer)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client,
    ):
        reply = await client.post(CHAT, json={"model": "m", "messages": [{"role": "user", "content": "2+3?"}]})
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


@pytest.mark.parametrize(
    "url",
    [
        *("", "localhost:8000", "ftp://x", "http://", "http://u:p@x", "http://x?y=1", "http://x#y"),
        *("http://x:99999", "http://x:abc", "http://a..b:80", f"http://{'a' * 64}:80"),
    ],
)
def test_a_malformed_url_is_refused_at_once(nano_tokenizer, url):
    with pytest.raises(EngineError, match="engine URL"):
        make_remote_engine(url, NANO, nano_tokenizer)


@pytest.mark.parametrize("url", ["http://x:1", "http://x:1/", "http://x:1/v1", "http://x:1/v1/"])
def test_the_url_may_end_in_v1(url):
    assert RemoteOptions(url).place.url == "http://x:1"


def test_the_key_comes_from_a_file(nano_tokenizer, tmp_path: Path):
    path = tmp_path / "key"
    with pytest.raises(EngineError, match="cannot read the engine's API key"):
        make_remote_engine("http://x", NANO, nano_tokenizer, api_key_file=path)
    path.write_text("\n")
    with pytest.raises(EngineError, match="is empty"):
        make_remote_engine("http://x", NANO, nano_tokenizer, api_key_file=path)
    for content in ("sk-one\nsk-two\n", "sk-\0"):
        path.write_text(content)
        with pytest.raises(EngineError, match="expected one line of printable characters"):
            make_remote_engine("http://x", NANO, nano_tokenizer, api_key_file=path)
    path.write_text("sk-secret\n")
    assert make_remote_engine("http://x", NANO, nano_tokenizer, api_key_file=path)._options.api_key == "sk-secret"


@pytest.mark.parametrize("name", ["connect_s", "idle_s", "total_s"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_time_outs_are_positive(name, value):
    with pytest.raises(ValueError, match=name):
        Timeouts(**{name: value})


def test_info_needs_a_start(nano_tokenizer):
    with pytest.raises(EngineError, match="not started"):
        _ = remote_engine("http://127.0.0.1:9", nano_tokenizer).info
