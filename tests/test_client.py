"""The client's calls over a scripted transport, each behaviour on LHRM and on AsyncLHRM alike."""

from __future__ import annotations

import asyncio
import inspect
import json
import random
from collections.abc import Callable
from datetime import UTC, datetime

import httpx
import lhrm_client
import pytest
from lhrm_client import LHRM, AsyncLHRM, Finished
from lhrm_client._retry import RetryRule, server_hint_s

BASE = "http://gateway.test"
ACCOUNTING = {
    "mode": "think",
    "source": "model",
    "p_think": 0.9,
    "threshold": 0.5,
    "reasoning_tokens": 3,
    "answer_tokens": 2,
    "overhead_tokens": 2,
    "decide_tokens": 1,
    "ended_by": "stop",
    "reasoning_ended_by": "model",
    "latency": {
        "queue_ms": 0.1,
        "decide_ms": 1.0,
        "first_token_ms": 2.0,
        "first_answer_token_ms": 3.0,
        "total_ms": 4.0,
    },
    "savings": {
        "tokens": 0,
        "interval": [0, 0],
        "confidence": 0.95,
        "n": 0,
        "method": "observed",
        "provenance": "observed",
    },
}
BODY = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "42", "reasoning": "6*7", "reasoning_content": "6*7"},
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 5,
        "completion_tokens": 7,
        "total_tokens": 12,
        "completion_tokens_details": {"reasoning_tokens": 3},
    },
    "lhrm": ACCOUNTING,
}


def _frame(delta=None, finish=None, **more) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices}
    return b"data: " + json.dumps({**chunk, **more}).encode() + b"\n\n"


FRAMES = [
    _frame({"role": "assistant", "content": ""}, lhrm={"mode": "think", "source": "model", "p_think": 0.9}),
    b": keep-alive\n\n",
    _frame({"reasoning": "6*7", "reasoning_content": "6*7"}),
    _frame({"content": "42"}),
    _frame({}, "stop", lhrm=ACCOUNTING),
    _frame(usage=BODY["usage"]),
    b"data: [DONE]\n\n",
]

Handler = Callable[[httpx.Request], httpx.Response]


class Shell:
    """One client class behind calls that run to completion."""

    def __init__(self, asynchronous: bool) -> None:
        self.asynchronous = asynchronous

    def run(self, handler: Handler, method: str, *args, client: dict | None = None, **options):
        settings = {"model": "m", **(client or {}), "transport": httpx.MockTransport(handler)}
        if self.asynchronous:
            return asyncio.run(self._run(settings, method, args, options))
        with LHRM(BASE, **settings) as lhrm:
            result = getattr(lhrm, method)(*args, **options)
            return list(result) if inspect.isgenerator(result) else result

    async def _run(self, settings, method, args, options):
        async with AsyncLHRM(BASE, **settings) as lhrm:
            result = getattr(lhrm, method)(*args, **options)
            if inspect.isasyncgen(result):
                return [event async for event in result]
            return await result

    def chat(self, handler: Handler, *args, **options):
        return self.run(handler, "chat", *args, **options)

    def stream(self, handler: Handler, *args, **options):
        return self.run(handler, "chat_stream", *args, **options)


@pytest.fixture(params=["sync", "async"])
def shell(request) -> Shell:
    return Shell(request.param == "async")


class Script:
    """A handler that plays answers in order, keeps the requests, and repeats the last answer."""

    def __init__(self, *answers: httpx.Response | Exception | type[Exception]) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, httpx.Response):
            return answer
        raise answer

    @property
    def body(self) -> dict:
        return json.loads(self.requests[-1].content)


def ok(**changes) -> httpx.Response:
    return httpx.Response(200, json={**BODY, **changes}, headers={"x-request-id": "req-1"})


def stream_ok(frames=FRAMES) -> httpx.Response:
    return httpx.Response(200, content=b"".join(frames), headers={"x-request-id": "req-1"})


def failing(status: int, **headers: str) -> httpx.Response:
    error = {"error": {"message": "no", "type": "t", "param": "p", "code": "c"}}
    return httpx.Response(status, json=error, headers={"x-request-id": "req-1", **headers})


def test_exported_names_are_complete():
    # RUF022 keeps __all__ sorted; here: nothing public is missing and nothing listed is absent.
    public = {name for name in vars(lhrm_client) if not name.startswith("_")}
    assert public == set(lhrm_client.__all__)


def test_both_clients_offer_the_same_calls():
    def calls(cls: type) -> dict[str, list[str]]:
        members = inspect.getmembers(cls, inspect.isfunction)
        return {name: list(inspect.signature(f).parameters) for name, f in members if not name.startswith("__")}

    assert calls(LHRM) == calls(AsyncLHRM)
    assert list(inspect.signature(LHRM).parameters) == list(inspect.signature(AsyncLHRM).parameters)


def test_chat_reads_every_part(shell):
    result = shell.chat(Script(ok()), "6 times 7?")
    assert (result.answer, result.reasoning, result.finish_reason) == ("42", "6*7", "stop")
    assert (result.mode, result.source, result.p_think, result.threshold) == ("think", "model", 0.9, 0.5)
    assert (result.usage.prompt_tokens, result.usage.completion_tokens, result.usage.reasoning_tokens) == (5, 7, 3)
    assert (result.reasoning_tokens, result.answer_tokens, result.overhead_tokens) == (3, 2, 2)
    assert (result.ended_by, result.reasoning_ended_by, result.decide_tokens) == ("stop", "model", 1)
    assert result.latency.first_answer_token_ms == 3.0
    assert result.savings.tokens == 0
    assert result.savings.interval == (0, 0)
    assert result.request_id == "req-1"
    assert result.raw == BODY


def test_no_think_without_savings(shell):
    block = {**ACCOUNTING, "mode": "no_think", "reasoning_tokens": 0, "reasoning_ended_by": None, "savings": None}
    message = {"role": "assistant", "content": "42", "reasoning": None, "reasoning_content": None}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    result = shell.chat(Script(ok(lhrm=block, choices=choices)), "6 times 7?")
    assert (result.mode, result.reasoning, result.savings) == ("no_think", None, None)


def test_stream_adds_up_to_the_same_result_as_chat(shell):
    whole = shell.chat(Script(ok()), "q")
    *deltas, last = shell.stream(Script(stream_ok()), "q")
    assert isinstance(last, Finished)
    assert last.result == whole
    assert "".join(d.text for d in deltas) == "6*742"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {}),
        ({"mode": "auto"}, {"thinking": {"type": "auto"}}),
        ({"mode": "think"}, {"thinking": {"type": "enabled"}}),
        ({"mode": "no_think"}, {"thinking": {"type": "disabled"}}),
        ({"think_threshold": 0}, {"think_threshold": 0}),
        ({"mode": "auto", "think_threshold": 0.25}, {"thinking": {"type": "auto"}, "think_threshold": 0.25}),
        (
            {"max_tokens": 9, "temperature": 0, "seed": 0, "top_p": 1},
            {"max_tokens": 9, "temperature": 0, "seed": 0, "top_p": 1},
        ),
        ({"extra": {"user": "u"}}, {"user": "u"}),
        ({"model": "other"}, {"model": "other"}),
    ],
)
def test_request_body(shell, options, expected):
    script = Script(ok())
    shell.chat(script, "q", **options)
    base = {"model": "m", "messages": [{"role": "user", "content": "q"}], "stream": False}
    assert script.body == {**base, **expected}


def test_stream_request_asks_for_usage(shell):
    script = Script(stream_ok())
    shell.stream(script, [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}])
    assert script.body["stream"] is True
    assert script.body["stream_options"] == {"include_usage": True}
    assert [turn["role"] for turn in script.body["messages"]] == ["system", "user"]


@pytest.mark.parametrize(
    ("messages", "options", "named"),
    [
        ("q", {"mode": "maybe"}, "mode='maybe'"),
        ("q", {"think_threshold": 1.5}, "think_threshold=1.5"),
        ("q", {"think_threshold": float("nan")}, "think_threshold=nan"),
        ("q", {"mode": "think", "think_threshold": 0.5}, "mode='think'"),
        ("q", {"temperature": float("inf")}, "temperature"),
        ("\ud800", {}, "messages"),
        ([], {}, "messages is empty"),
        (["q"], {}, r"messages\[0\]"),
        ("q", {"extra": {"stream": True}}, "stream"),
        ("q", {"extra": {"tools": object()}}, "tools"),
    ],
)
@pytest.mark.parametrize("method", ["chat", "chat_stream"])
def test_bad_arguments_are_refused_before_sending(shell, method, messages, options, named):
    script = Script(ok())
    with pytest.raises(lhrm_client.ArgumentError, match=named):
        shell.run(script, method, messages, **options)
    assert script.requests == []


def test_unknown_option_is_a_type_error(shell):
    with pytest.raises(TypeError, match="temprature"):
        shell.chat(Script(ok()), "q", temprature=1)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"base_url": "gateway:8000"}, "base_url"),
        ({"base_url": "http://"}, "base_url"),
        ({"base_url": "http://[::1"}, "base_url"),
        ({"base_url": BASE, "max_retries": -1}, "max_retries=-1"),
        ({"base_url": BASE, "api_key": "clé"}, "api_key"),
        ({"base_url": BASE, "api_key": "a\nb"}, "api_key"),
    ],
)
@pytest.mark.parametrize("cls", [LHRM, AsyncLHRM])
def test_bad_settings_are_refused(cls, settings, named):
    with pytest.raises(lhrm_client.ArgumentError, match=named):
        cls(**settings)


@pytest.mark.parametrize("base", [BASE, BASE + "/", BASE + "/v1", BASE + "/v1/"])
def test_base_url_with_and_without_v1(base):
    script = Script(ok())
    with LHRM(base, "secret", model="m", transport=httpx.MockTransport(script)) as lhrm:
        lhrm.chat("q")
    assert str(script.requests[0].url) == BASE + "/v1/chat/completions"
    assert script.requests[0].headers["authorization"] == "Bearer secret"


def test_model_is_discovered_once(shell):
    models = httpx.Response(200, json={"object": "list", "data": [{"id": "nano", "lhrm": {}}, {"id": "nano-think"}]})
    script = Script(models, ok())
    shell.chat(script, "q", client={"model": None})
    assert [request.url.path for request in script.requests] == ["/v1/models", "/v1/chat/completions"]
    assert script.body["model"] == "nano"


def test_models_lists_capabilities(shell):
    data = [{"id": "nano", "lhrm": {"default": "auto"}}, {"id": "nano-think"}]
    models = shell.run(Script(httpx.Response(200, json={"data": data})), "models")
    assert [(model.id, model.lhrm) for model in models] == [("nano", {"default": "auto"}), ("nano-think", None)]


@pytest.mark.parametrize("data", [[], None, [{}], "nano"])
def test_unusable_model_list(shell, data):
    script = Script(httpx.Response(200, json={"data": data}))
    with pytest.raises(lhrm_client.ResponseFormatError):
        shell.chat(script, "q", client={"model": None})


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (301, "StatusError"),
        (400, "BadRequestError"),
        (401, "AuthenticationError"),
        (403, "PermissionDeniedError"),
        (404, "NotFoundError"),
        (413, "RequestTooLargeError"),
        (418, "StatusError"),
        (422, "BadRequestError"),
        (429, "RateLimitError"),
        (500, "ServerError"),
        (503, "OverloadedError"),
        (504, "ServerError"),
    ],
)
@pytest.mark.parametrize("method", ["chat", "chat_stream"])
def test_status_becomes_its_error(shell, method, status, error):
    with pytest.raises(lhrm_client.StatusError) as caught:
        shell.run(Script(failing(status)), method, "q", client={"max_retries": 0})
    exc = caught.value
    assert type(exc).__name__ == error
    assert (exc.status, exc.request_id, exc.param, exc.code, exc.type) == (status, "req-1", "p", "c", "t")
    assert str(exc) == f"no (status {status}, request id req-1)"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"error":"Unauthorized"}', "Unauthorized"),
        (b"<html>", "<html>"),
        (b"", "the server answered 400"),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_foreign_error_bodies(shell, content, message):
    with pytest.raises(lhrm_client.BadRequestError) as caught:
        shell.chat(Script(httpx.Response(400, content=content)), "q")
    assert caught.value.message == message
    assert (caught.value.param, caught.value.request_id) == (None, None)


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (httpx.ConnectError("refused"), "ConnectFailedError"),
        (httpx.ConnectTimeout(""), "ConnectFailedError"),
        (httpx.ReadTimeout(""), "RequestTimeoutError"),
        (httpx.PoolTimeout(""), "RequestTimeoutError"),
        (httpx.RemoteProtocolError("gone"), "TransportError"),
        (httpx.ReadError("gone"), "TransportError"),
    ],
)
@pytest.mark.parametrize("method", ["chat", "chat_stream"])
def test_transport_failures(shell, method, raised, error):
    script = Script(raised)
    with pytest.raises(lhrm_client.TransportError) as caught:
        shell.run(script, method, "q", client={"max_retries": 0})
    assert type(caught.value).__name__ == error
    assert BASE in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"not json",
        b"[]",
        json.dumps({**BODY, "lhrm": None}).encode(),
        json.dumps({**BODY, "lhrm": {**ACCOUNTING, "mode": "perhaps"}}).encode(),
        json.dumps({**BODY, "choices": []}).encode(),
        json.dumps({**BODY, "choices": ["x"]}).encode(),
        json.dumps({**BODY, "usage": None}).encode(),
        json.dumps({**BODY, "model": None}).encode(),
    ],
)
def test_answers_of_another_kind_are_refused(shell, content):
    script = Script(httpx.Response(200, content=content))
    with pytest.raises(lhrm_client.ResponseFormatError):
        shell.chat(script, "q")


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_passing_failures_are_retried(shell, status):
    script = Script(failing(status, **{"retry-after-ms": "1"}), ok())
    assert shell.chat(script, "q").answer == "42"
    assert len(script.requests) == 2
    script = Script(failing(status, **{"retry-after-ms": "1"}), stream_ok())
    assert shell.stream(script, "q")[-1].result.answer == "42"
    assert len(script.requests) == 2


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 413])
def test_lasting_failures_are_not_retried(shell, status):
    script = Script(failing(status, **{"retry-after-ms": "1"}), ok())
    with pytest.raises(lhrm_client.StatusError):
        shell.chat(script, "q")
    assert len(script.requests) == 1


def test_retries_are_bounded(shell):
    script = Script(failing(503, **{"retry-after-ms": "1"}))
    with pytest.raises(lhrm_client.OverloadedError):
        shell.chat(script, "q", client={"max_retries": 3})
    assert len(script.requests) == 4


def test_connect_failures_are_retried_and_sent_requests_are_not(shell, monkeypatch):
    monkeypatch.setattr("lhrm_client._retry._BASE_S", 0.001)
    script = Script(httpx.ConnectError("refused"), httpx.ConnectTimeout(""), ok())
    assert shell.chat(script, "q").answer == "42"
    for failure in (httpx.ReadTimeout(""), httpx.RemoteProtocolError("gone")):
        script = Script(failure, ok())
        with pytest.raises(lhrm_client.TransportError):
            shell.chat(script, "q")
        assert len(script.requests) == 1


def test_failure_after_the_first_event_is_not_retried(shell):
    broken = [*FRAMES[:3], b'data: {"error": {"message": "engine failed", "code": "engine"}}\n\n', FRAMES[-1]]
    script = Script(stream_ok(broken), stream_ok())
    with pytest.raises(lhrm_client.StreamError, match="engine failed") as caught:
        shell.stream(script, "q")
    assert (caught.value.code, caught.value.request_id, caught.value.status) == ("engine", "req-1", 200)
    assert len(script.requests) == 1


def test_a_stream_that_just_ends_is_an_error(shell):
    script = Script(stream_ok(FRAMES[:-1]))
    with pytest.raises(lhrm_client.StreamInterruptedError):
        shell.stream(script, "q")
    assert len(script.requests) == 1


class Cut(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body whose connection breaks after the given chunks."""

    def __init__(self, chunks: list[bytes]) -> None:
        self.chunks = chunks

    def __iter__(self):
        yield from self.chunks
        raise httpx.ReadError("connection reset")

    async def __aiter__(self):
        for chunk in self.chunks:
            yield chunk
        raise httpx.ReadError("connection reset")


def test_a_connection_cut_within_the_stream_is_an_error(shell):
    script = Script(httpx.Response(200, stream=Cut(FRAMES[:4])))
    with pytest.raises(lhrm_client.StreamInterruptedError, match="connection reset"):
        shell.stream(script, "q")
    assert len(script.requests) == 1


def test_a_connection_cut_after_the_end_marker_is_harmless(shell):
    events = shell.stream(Script(httpx.Response(200, stream=Cut(FRAMES))), "q")
    assert events[-1].result.answer == "42"


def test_a_cut_body_is_a_transport_error(shell):
    script = Script(httpx.Response(200, stream=Cut([b"{"])))
    with pytest.raises(lhrm_client.TransportError, match="connection reset"):
        shell.chat(script, "q")
    assert len(script.requests) == 1


def test_no_key_in_what_is_printed():
    with LHRM(BASE, "secret") as lhrm:
        assert "secret" not in repr(lhrm)


NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "later"}, None),
        ({"retry-after": "Thu, 01 Jan 2026 00:00:07 GMT"}, 7.0),
        ({"retry-after": "Thu, 01 Jan 2026 00:00:07"}, 7.0),
        ({"retry-after": "Wed, 31 Dec 2025 23:00:00 GMT"}, 0.0),
    ],
)
def test_server_hint(headers, seconds):
    assert server_hint_s(headers, NOW) == seconds


def test_backoff_is_capped_and_jittered():
    rule, rng = RetryRule(max_retries=10), random.Random(0)
    waits = [rule.delay_s(attempt, {}, rng) for attempt in range(10)]
    for attempt, wait_s in enumerate(waits):
        ceiling = min(8.0, 0.5 * 2**attempt)
        assert ceiling / 2 <= wait_s <= ceiling
    assert len({wait_s / min(8.0, 0.5 * 2**i) for i, wait_s in enumerate(waits)}) == 10
    assert rule.delay_s(10, {}, rng) is None


def test_hint_is_a_lower_bound_and_one_beyond_the_cap_ends_the_retries():
    rule, rng = RetryRule(max_retries=1, hint_cap_s=60), random.Random(0)
    assert all(3.0 <= rule.delay_s(0, {"retry-after": "3"}, rng) <= 3.3 for _ in range(50))
    assert rule.delay_s(0, {"retry-after": "61"}, rng) is None
