"""Both clients against a gateway on a real socket."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from contextlib import suppress

import httpx
import pytest
import uvicorn
from client_shell import Shell
from fake_gateway import MODEL, fake_gateway, scripted
from lhrm_client import (
    LHRM,
    AnswerDelta,
    AsyncLHRM,
    BadRequestError,
    ConnectFailedError,
    Finished,
    ModeChosen,
    NotFoundError,
    OverloadedError,
    ReasoningDelta,
    RequestTimeoutError,
    RequestTooLargeError,
    ServerError,
    StreamError,
    StreamInterruptedError,
    StreamTimeoutError,
    ToolCallDelta,
    UsageReport,
)
from lhrm_client._call import LIMITS
from lhrm_server.engine_fake import Script

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
TOOL_CHOICE = {"type": "function", "function": {"name": "add"}}


class LiveShell(Shell):
    """The shell over the network."""

    def call(self, method: str, *args, client: dict | None = None, **options):
        return self.run(None, method, *args, client={"max_retries": 0, **(client or {})}, **options)


@pytest.fixture(scope="module")
def gateway(loop_thread, nano_tokenizer):
    calls = '[{"name": "add", "parameters": {"a": 6}}, {"name": "add", "parameters": {"a": "é"}}]'
    grammar_ids = (*nano_tokenizer.encode_text(calls), nano_tokenizer.turn_end_id)
    script = scripted(nano_tokenizer, "6 times 7", "é is 42", p_think=0.8, grammar_ids=grammar_ids)
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
    first, *deltas, usage, last = live.call("stream", "6 times 7?", mode=mode)
    assert first == ModeChosen(whole.mode, whole.source, whole.p_think, whole.threshold)
    assert usage == UsageReport(whole.usage)
    assert isinstance(last, Finished)
    assert agreed(deltas, last.result)
    assert lasting(last.result) == lasting(whole)


def agreed(deltas, result) -> bool:
    """Tell whether the pieces spell the result."""
    for choice in result.choices:
        mine = [delta for delta in deltas if delta.choice == choice.index]
        assert "".join(d.text for d in mine if isinstance(d, ReasoningDelta)) == (choice.reasoning or "")
        assert "".join(d.text for d in mine if isinstance(d, AnswerDelta)) == choice.answer
        calls = [d for d in mine if isinstance(d, ToolCallDelta)]
        for index, call in enumerate(choice.tool_calls):
            assert "".join(d.arguments for d in calls if d.index == index) == call.arguments
            assert [(d.id, d.name) for d in calls if d.index == index and d.id] == [(call.id, call.name)]
    return True


def lasting(result) -> dict:
    """Return what two equal requests have in common, the raw body included."""
    dumped = result.model_dump(exclude={"request_id", "latency"})
    for call in [call for choice in dumped["raw"]["choices"] for call in choice["message"].get("tool_calls", [])]:
        call["id"] = "call"
    for choice in dumped["raw"]["choices"]:
        # A stream cannot tell reasoning that is hidden from reasoning that is not there.
        choice["message"] = {name: value for name, value in choice["message"].items() if value is not None}
    for part in (dumped, *dumped["choices"]):
        part["tool_calls"] = [{**call, "id": "call"} for call in part["tool_calls"]]
    raw = {name: value for name, value in dumped["raw"].items() if name not in ("id", "created")}
    raw["lhrm"] = {name: value for name, value in raw["lhrm"].items() if name != "latency"}
    return {**dumped, "raw": raw}


@pytest.mark.parametrize("mode", ["think", "no_think"])
@pytest.mark.parametrize(
    "options",
    [
        {"n": 3},
        {"n": 2, "extra": {"logprobs": True, "top_logprobs": 1}},
        {"extra": {"include_reasoning": False}},
        {"extra": {"separate_reasoning": False}},
        {"stop": "42"},
        {"stop": ["i", "s"]},
        {"max_tokens": 2},
        {"thinking_budget": 1},
        {"tools": [TOOL], "tool_choice": "required"},
        {"tools": [TOOL], "tool_choice": TOOL_CHOICE},
    ],
    ids=str,
)
def test_every_shape_streams_to_what_the_whole_reply_says(live, mode, options):
    whole = live.call("chat", "6 times 7?", mode=mode, **options)
    _, *deltas, _, last = live.call("stream", "6 times 7?", mode=mode, **options)
    assert len(whole.choices) == options.get("n", 1)
    assert agreed(deltas, last.result)
    assert lasting(last.result) == lasting(whole)


def test_a_budget_limits_the_reasoning(live):
    result = live.call("chat", "q", mode="think", thinking_budget=1)
    assert (result.reasoning_tokens, result.reasoning_ended_by) == (1, "budget")
    assert live.call("chat", "q", thinking_budget=0).mode == "no_think"


def test_a_request_id_is_ones_own(live):
    assert live.call("chat", "q", request_id="mine-1").request_id == "mine-1"


def test_models_and_version(live):
    models = live.call("models")
    assert {model.id for model in models} == {MODEL, f"{MODEL}-think", f"{MODEL}-no-think"}
    assert models[0].id == MODEL
    assert live.call("version")["engine"]["kind"] == "fake"


@pytest.mark.parametrize("method", ["chat", "stream"])
@pytest.mark.parametrize(
    ("question", "options", "error", "param"),
    [
        ("q", {"extra": {"logit_bias": {"1": 101}}}, BadRequestError, "logit_bias.1"),
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
@pytest.mark.parametrize(("method", "error"), [("chat", ServerError), ("stream", StreamError)])
def test_engine_failure_after_the_first_event(loop_thread, nano_tokenizer, asynchronous, method, error):
    with fake_gateway(loop_thread, nano_tokenizer, Script(fail_at=3)) as (url, engine):
        with pytest.raises(error) as caught:
            LiveShell(asynchronous, url).call(
                method, "q", mode="think", client={"max_retries": 2} if method == "stream" else None
            )
        assert caught.value.request_id
        assert len(engine.requests) == 1


def test_engine_failure_before_the_first_event_is_retried(loop_thread, nano_tokenizer, monkeypatch):
    monkeypatch.setattr("lhrm_client._retry._BASE_S", 0.001)
    scripts = [Script(fail_at=0), Script()]
    with fake_gateway(loop_thread, nano_tokenizer, lambda _: scripts.pop(0)) as (url, engine):
        events = LiveShell(False, url).call("stream", "q", mode="think", client={"max_retries": 1})
    assert events[-1].result.ended_by == "stop"
    assert len(engine.requests) == 2


def test_a_full_server_is_overloaded(loop_thread, nano_tokenizer):
    script = Script(hang_at=1)
    with (
        fake_gateway(loop_thread, nano_tokenizer, script, max_concurrent_requests=1) as (url, _),
        LHRM(url, max_retries=0) as lhrm,
        lhrm.stream("q", mode="think") as stream,
    ):
        assert isinstance(next(stream), ModeChosen)
        with pytest.raises(OverloadedError):
            lhrm.chat("q")


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_full_server_is_asked_again_when_it_says_so(loop_thread, nano_tokenizer, asynchronous):
    scripts = [Script(hang_at=1), Script()]
    with (
        fake_gateway(loop_thread, nano_tokenizer, lambda _: scripts.pop(0), max_concurrent_requests=1) as (url, engine),
        LHRM(url) as first,
        first.stream("q", mode="think") as stream,
    ):
        next(stream)
        threading.Timer(0.2, stream.close).start()
        began = time.monotonic()
        result = LiveShell(asynchronous, url).call("chat", "q", mode="think", client={"max_retries": 1})
        # The server's Retry-After is a second.
        assert 1.0 <= time.monotonic() - began < 3
        assert result.ended_by == "stop"
        assert len(engine.requests) == 2


def _wait_until(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_first_event_comes_before_the_answer_is_complete_and_closing_aborts(loop_thread, nano_tokenizer, asynchronous):
    with (
        fake_gateway(loop_thread, nano_tokenizer, Script(hang_at=2)) as (url, engine),
        Shell(asynchronous, url).session() as lhrm,
    ):
        stream = lhrm.get("stream", "q", mode="think")
        assert isinstance(stream.next(), ModeChosen)
        assert isinstance(stream.next(), ReasoningDelta)
        assert engine.active == 1
        stream.do("close")
        _wait_until(lambda: engine.aborted == 1 and engine.active == 0)
        with pytest.raises(StreamInterruptedError, match="closed"):
            stream.do("finish")


@pytest.mark.parametrize("method", ["chat", "stream"])
async def test_cancelling_the_task_aborts(loop_thread, nano_tokenizer, method):
    async def ask(lhrm):
        if method == "chat":
            await lhrm.chat("q", mode="think")
        async for _ in lhrm.stream("q", mode="think"):
            pass

    with fake_gateway(loop_thread, nano_tokenizer, Script(hang_at=2)) as (url, engine):
        async with AsyncLHRM(url) as lhrm:
            task = asyncio.create_task(ask(lhrm))
            await asyncio.to_thread(_wait_until, lambda: engine.hanging == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.to_thread(_wait_until, lambda: engine.aborted == 1 and engine.active == 0)


@pytest.mark.parametrize("leave", ["break", "raise"])
def test_leaving_the_block_aborts(loop_thread, nano_tokenizer, leave):
    with fake_gateway(loop_thread, nano_tokenizer, Script(hang_at=2)) as (url, engine), LHRM(url) as lhrm:
        with suppress(ZeroDivisionError), lhrm.stream("q", mode="think") as stream:
            for event in stream:
                if isinstance(event, ReasoningDelta):
                    if leave == "raise":
                        raise ZeroDivisionError
                    break
        _wait_until(lambda: engine.aborted == 1 and engine.active == 0)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_stream_that_nobody_holds_aborts(loop_thread, nano_tokenizer, asynchronous):
    with fake_gateway(loop_thread, nano_tokenizer, Script(hang_at=2)) as (url, engine):
        if asynchronous:
            async with AsyncLHRM(url) as lhrm:
                async for _ in lhrm.stream("q", mode="think"):
                    break
                await asyncio.to_thread(_wait_until, lambda: engine.aborted == 1 and engine.active == 0)
        else:
            with LHRM(url) as lhrm:
                for _ in lhrm.stream("q", mode="think"):
                    break
                await asyncio.to_thread(_wait_until, lambda: engine.aborted == 1 and engine.active == 0)


async def test_leaving_the_async_block_aborts(loop_thread, nano_tokenizer):
    with fake_gateway(loop_thread, nano_tokenizer, Script(hang_at=2)) as (url, engine):
        async with AsyncLHRM(url) as lhrm, lhrm.stream("q", mode="think") as stream:
            assert isinstance(await anext(stream), ModeChosen)
        await asyncio.to_thread(_wait_until, lambda: engine.aborted == 1 and engine.active == 0)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(("method", "error"), [("chat", RequestTimeoutError), ("stream", StreamTimeoutError)])
def test_the_deadline_ends_a_slow_answer_and_aborts_it(loop_thread, nano_tokenizer, asynchronous, method, error):
    with fake_gateway(loop_thread, nano_tokenizer, Script(delay_s=0.05)) as (url, engine):
        began = time.monotonic()
        with pytest.raises(error):
            LiveShell(asynchronous, url).call(method, "q", mode="think", deadline_s=0.3)
        assert 0.3 <= time.monotonic() - began < 2
        _wait_until(lambda: engine.aborted == 1 and engine.active == 0)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_stream_that_falls_silent_times_out(loop_thread, nano_tokenizer, asynchronous):
    with fake_gateway(loop_thread, nano_tokenizer, Script(hang_at=2)) as (url, engine):
        with pytest.raises(StreamTimeoutError) as caught:
            LiveShell(asynchronous, url).call("stream", "q", mode="think", client={"timeout": 0.3})
        assert isinstance(caught.value, RequestTimeoutError)
        assert caught.value.request_id
        _wait_until(lambda: engine.aborted == 1 and engine.active == 0)


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
            list(lhrm.stream("q"))
            lhrm.chat("q")
    assert opened.count("connection.connect_tcp.complete") == 1


def test_idle_connections_are_let_go_before_the_gateway_closes_them():
    assert LIMITS.keepalive_expiry < uvicorn.Config("lhrm_server.app").timeout_keep_alive


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
