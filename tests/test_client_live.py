"""Both clients against a gateway on a real socket."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import aclosing, closing

import httpx
import pytest
from client_shell import Shell
from fake_gateway import MODEL, fake_gateway, scripted
from lhrm_client import (
    LHRM,
    AsyncLHRM,
    BadRequestError,
    ConnectFailedError,
    Finished,
    NotFoundError,
    OverloadedError,
    ReasoningDelta,
    RequestTimeoutError,
    RequestTooLargeError,
    ServerError,
    StreamError,
)
from lhrm_server.engine_fake import Script


class LiveShell(Shell):
    """The shell of the scripted transport, over the network instead."""

    def __init__(self, asynchronous: bool, url: str) -> None:
        super().__init__(asynchronous)
        self.url = url

    def call(self, method: str, *args, client: dict | None = None, **options):
        settings = {"max_retries": 0, **(client or {})}
        if self.asynchronous:
            return asyncio.run(self._call(settings, method, args, options))
        with LHRM(self.url, **settings) as lhrm:
            result = getattr(lhrm, method)(*args, **options)
            return list(result) if method == "chat_stream" else result

    async def _call(self, settings, method, args, options):
        async with AsyncLHRM(self.url, **settings) as lhrm:
            result = getattr(lhrm, method)(*args, **options)
            return [event async for event in result] if method == "chat_stream" else await result


@pytest.fixture(scope="module")
def gateway(loop_thread, nano_tokenizer):
    script = scripted(nano_tokenizer, "6 times 7", "é is 42", p_think=0.8)
    with fake_gateway(loop_thread, nano_tokenizer, script, max_body_bytes=20_000) as (url, engine):
        yield url, engine


@pytest.fixture(params=["sync", "async"])
def live(request, gateway) -> LiveShell:
    return LiveShell(request.param == "async", gateway[0])


@pytest.mark.parametrize(
    ("options", "mode", "source", "p_think"),
    [
        ({}, "think", "model", 0.8),
        ({"mode": "auto"}, "think", "model", 0.8),
        ({"mode": "think"}, "think", "request", None),
        ({"mode": "no_think"}, "no_think", "request", None),
        ({"think_threshold": 0.9}, "no_think", "model", 0.8),
        ({"model": f"{MODEL}-no-think"}, "no_think", "request", None),
        ({"model": f"{MODEL}-no-think", "mode": "auto"}, "think", "model", 0.8),
    ],
)
def test_modes(live, options, mode, source, p_think):
    result = live.call("chat", "6 times 7?", **options)
    assert (result.mode, result.source, result.answer) == (mode, source, "é is 42")
    assert result.reasoning == ("6 times 7" if mode == "think" else None)
    assert result.p_think == (None if p_think is None else pytest.approx(p_think))
    assert result.usage.completion_tokens == (result.reasoning_tokens + result.answer_tokens + result.overhead_tokens)
    assert result.usage.reasoning_tokens == result.reasoning_tokens
    assert result.decide_tokens == (1 if source == "model" else 0)
    assert result.request_id
    assert result.latency.total_ms > 0


@pytest.mark.parametrize("mode", ["think", "no_think", "auto"])
def test_stream_and_whole_answer_agree(live, mode):
    whole = live.call("chat", "6 times 7?", mode=mode)
    *deltas, last = live.call("chat_stream", "6 times 7?", mode=mode)
    assert isinstance(last, Finished)
    reasoning = "".join(delta.text for delta in deltas if isinstance(delta, ReasoningDelta))
    assert reasoning == (last.result.reasoning or "")
    changing = {"request_id", "latency", "raw"}
    assert last.result.model_dump(exclude=changing) == whole.model_dump(exclude=changing)


def test_models_and_version(live):
    models = live.call("models")
    assert {model.id for model in models} == {MODEL, f"{MODEL}-think", f"{MODEL}-no-think"}
    assert models[0].id == MODEL
    assert live.call("version")["engine"]["kind"] == "fake"


@pytest.mark.parametrize("method", ["chat", "chat_stream"])
@pytest.mark.parametrize(
    ("question", "options", "error", "param"),
    [
        ("q", {"extra": {"echo": True}}, BadRequestError, "echo"),
        ("q", {"extra": {"frobnicate": 1}}, BadRequestError, "frobnicate"),
        ("q", {"max_tokens": 0}, BadRequestError, "max_tokens"),
        ("q", {"mode": "think", "extra": {"reasoning_effort": "none"}}, BadRequestError, None),
        ("q", {"model": "unknown"}, NotFoundError, "model"),
        ("q " * 2000, {}, BadRequestError, "messages"),
        ("q" * 30_000, {}, RequestTooLargeError, None),
    ],
)
def test_refusals(live, method, question, options, error, param):
    with pytest.raises(error) as caught:
        live.call(method, question, **options)
    assert caught.value.request_id
    if param is not None:
        assert caught.value.param == param


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(("method", "error"), [("chat", ServerError), ("chat_stream", StreamError)])
def test_engine_failure_after_the_first_event(loop_thread, nano_tokenizer, asynchronous, method, error):
    with fake_gateway(loop_thread, nano_tokenizer, Script(fail_at=3)) as (url, engine):
        with pytest.raises(error) as caught:
            LiveShell(asynchronous, url).call(
                method, "q", mode="think", client={"max_retries": 2} if method == "chat_stream" else None
            )
        assert caught.value.request_id
        assert len(engine.requests) == 1


def test_engine_failure_before_the_first_event_is_retried(loop_thread, nano_tokenizer, monkeypatch):
    monkeypatch.setattr("lhrm_client._retry._BASE_S", 0.001)
    scripts = [Script(fail_at=0), Script()]
    with fake_gateway(loop_thread, nano_tokenizer, lambda _: scripts.pop(0)) as (url, engine):
        events = LiveShell(False, url).call("chat_stream", "q", mode="think", client={"max_retries": 1})
    assert events[-1].result.ended_by == "stop"
    assert len(engine.requests) == 2


def test_a_full_server_is_overloaded(loop_thread, nano_tokenizer):
    script = Script(hang_at=1)
    with (
        fake_gateway(loop_thread, nano_tokenizer, script, max_concurrent_requests=1) as (url, _),
        LHRM(url, max_retries=0) as lhrm,
        closing(lhrm.chat_stream("q", mode="think")) as stream,
    ):
        assert isinstance(next(stream), ReasoningDelta)
        with pytest.raises(OverloadedError):
            lhrm.chat("q")


def _wait_until(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


def test_first_event_comes_before_the_answer_is_complete_and_closing_aborts(loop_thread, nano_tokenizer):
    with fake_gateway(loop_thread, nano_tokenizer, Script(hang_at=2)) as (url, engine):
        with LHRM(url) as lhrm, closing(lhrm.chat_stream("q", mode="think")) as stream:
            assert isinstance(next(stream), ReasoningDelta)
            assert engine.active == 1
        _wait_until(lambda: engine.aborted == 1 and engine.active == 0)


async def test_closing_aborts_async(loop_thread, nano_tokenizer):
    with fake_gateway(loop_thread, nano_tokenizer, Script(hang_at=2)) as (url, engine):
        async with AsyncLHRM(url) as lhrm, aclosing(lhrm.chat_stream("q", mode="think")) as stream:
            assert isinstance(await anext(stream), ReasoningDelta)
        await asyncio.to_thread(_wait_until, lambda: engine.aborted == 1 and engine.active == 0)


def test_connections_are_reused(gateway):
    opened = []
    transport = httpx.HTTPTransport()

    class Counting(httpx.BaseTransport):
        def handle_request(self, request):
            request.extensions["trace"] = lambda name, _: opened.append(name)
            return transport.handle_request(request)

        def close(self):
            transport.close()

    with LHRM(gateway[0], model=MODEL, transport=Counting()) as lhrm:
        for _ in range(3):
            list(lhrm.chat_stream("q"))
            lhrm.chat("q")
    assert opened.count("connection.connect_tcp.complete") == 1


@pytest.mark.parametrize("asynchronous", [False, True])
def test_nobody_listens(asynchronous):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectFailedError, match=str(port)):
        LiveShell(asynchronous, f"http://127.0.0.1:{port}").call("chat", "q")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_server_that_never_answers(asynchronous):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(RequestTimeoutError):
            LiveShell(asynchronous, url).call("chat", "q", client={"timeout": 0.2, "model": "m"})


def test_one_client_serves_threads(gateway):
    answers = []
    with LHRM(gateway[0]) as lhrm:
        threads = [threading.Thread(target=lambda: answers.append(lhrm.chat("q").answer)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == ["é is 42"] * 8
