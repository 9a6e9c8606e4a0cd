"""The client's calls over a scripted transport, each behaviour on LHRM and on AsyncLHRM alike."""

from __future__ import annotations

import inspect
import json

import httpx
import lhrm_client
import pytest
from client_shell import ACCOUNTING, BASE, BODY, Script, Shell, failing, ok, stream_ok
from lhrm_client import (
    LHRM,
    AnswerDelta,
    AsyncChatStream,
    AsyncConversation,
    AsyncLHRM,
    ChatStream,
    Conversation,
    Finished,
    ModeChosen,
    ReasoningDelta,
    UsageReport,
)


@pytest.fixture(params=["sync", "async"])
def shell(request) -> Shell:
    return Shell(request.param == "async")


def test_exported_names_are_complete():
    # RUF022 keeps __all__ sorted; here: nothing public is missing and nothing listed is absent.
    # The module for the official client is an attribute once somebody has imported it.
    public = {name for name in vars(lhrm_client) if not name.startswith("_")} - {"openai"}
    assert public == set(lhrm_client.__all__)


@pytest.mark.parametrize(
    ("sync", "asynchronous"),
    [(LHRM, AsyncLHRM), (ChatStream, AsyncChatStream), (Conversation, AsyncConversation)],
)
def test_both_shells_offer_the_same_calls(sync, asynchronous):
    def calls(cls: type) -> dict[str, list[str]]:
        members = inspect.getmembers(cls, inspect.isfunction)
        return {name: list(inspect.signature(f).parameters) for name, f in members if not name.startswith("__")}

    assert calls(sync) == calls(asynchronous)
    assert list(inspect.signature(sync).parameters) == list(inspect.signature(asynchronous).parameters)


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
    assert shell.stream(Script(stream_ok()), "q") == [
        ModeChosen("think", "model", 0.9, 0.5),
        ReasoningDelta("6*7"),
        AnswerDelta("42"),
        UsageReport(whole.usage),
        Finished(whole),
    ]


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
        ({"thinking_budget": 64}, {"thinking_budget": 64}),
        ({"mode": "think", "thinking_budget": -1}, {"thinking": {"type": "enabled"}, "thinking_budget": -1}),
        ({"n": 2, "stop": ("a", "b")}, {"n": 2, "stop": ["a", "b"]}),
        ({"stop": "a"}, {"stop": "a"}),
        ({"mode": None, "seed": None, "tools": None, "deadline_s": 9}, {}),
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
        ("q", {"think_threshold": "0.5"}, "think_threshold='0.5'"),
        ("q", {"think_threshold": True}, "think_threshold=True"),
        ("q", {"mode": "think", "think_threshold": 0.5}, "mode='think'"),
        ("q", {"mode": ["auto"]}, r"mode=\['auto'\]"),
        ("q", {"thinking_budget": -2}, "thinking_budget=-2"),
        ("q", {"thinking_budget": 1.5}, "thinking_budget=1.5"),
        ("q", {"thinking_budget": True}, "thinking_budget=True"),
        ("q", {"stop": 5}, "stop=5"),
        ("q", {"stop": ["a", 5]}, "stop="),
        ("q", {"tools": "weather"}, "tools='weather'"),
        ("q", {"tools": [5]}, r"tools\[0\]=5"),
        ("q", {"tool_choice": "weather"}, "tool_choice='weather'"),
        ("q", {"answer_type": int}, "answer_type="),
        ("q", {"deadline_s": 0}, "deadline_s=0"),
        ("q", {"deadline_s": "1"}, "deadline_s='1'"),
        ("q", {"request_id": "é"}, "request_id='é'"),
        ("q", {"request_id": 5}, "request_id=5"),
        ("q", {"extra": 5}, "extra=5"),
        ("q", {"temperature": float("inf")}, "temperature"),
        ("\ud800", {}, "messages"),
        ([], {}, "messages is empty"),
        (["q"], {}, r"messages\[0\]"),
        ({"role": "user"}, {}, r"messages\[0\]"),
        (5, {}, "messages=5"),
        (None, {}, "messages=None"),
        ("q", {"deadline_s": 1e300}, r"deadline_s=1e\+300"),
        ("q", {"extra": {"stream": True}}, "stream"),
        ("q", {"extra": {"tools": object()}}, "tools"),
    ],
)
@pytest.mark.parametrize("method", ["chat", "stream"])
def test_bad_arguments_are_refused_before_sending(shell, method, messages, options, named):
    script = Script(ok())
    with pytest.raises(lhrm_client.ArgumentError, match=named):
        shell.run(script, method, messages, **options)
    assert script.requests == []


@pytest.mark.parametrize("method", ["chat", "stream"])
def test_unknown_option_is_a_type_error(shell, method):
    with pytest.raises(TypeError, match="temprature"):
        shell.run(Script(ok()), method, "q", temprature=1)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"base_url": "gateway:8000"}, "base_url"),
        ({"base_url": "http://"}, "base_url"),
        ({"base_url": "http://[::1"}, "base_url"),
        ({"base_url": None}, "base_url=None"),
        ({"base_url": BASE, "max_retries": -1}, "max_retries=-1"),
        ({"base_url": BASE, "max_retries": 1.5}, "max_retries=1.5"),
        ({"base_url": BASE, "timeout": 0}, "timeout=0"),
        ({"base_url": BASE, "timeout": None}, "timeout=None"),
        ({"base_url": b"http://a"}, "base_url=b'http://a'"),
        ({"base_url": "http://.."}, r"base_url='http://\.\.'"),
        ({"base_url": "http://a:99999"}, "99999 is not a port"),
        ({"base_url": BASE, "timeout": 1e300}, r"timeout=1e\+300"),
        ({"base_url": BASE, "model": 5}, "model=5"),
        ({"base_url": BASE, "headers": {"X-A": "é"}}, r"headers\['X-A'\]='é'"),
        ({"base_url": BASE, "headers": {"X-A": "a "}}, r"headers\['X-A'\]='a '"),
        ({"base_url": BASE, "headers": {"é": "x"}}, "headers: 'é'"),
        ({"base_url": BASE, "headers": {"a b": "x"}}, "headers: 'a b'"),
        ({"base_url": BASE, "headers": {"": "x"}}, "headers: ''"),
        ({"base_url": BASE, "headers": {5: "x"}}, "headers: 5"),
        ({"base_url": BASE, "headers": [("a", "x")]}, "headers is a list"),
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


def test_headers_of_the_client_and_of_the_call_are_sent(shell):
    script = Script(ok())
    shell.chat(script, "q", client={"headers": {"X-LHRM-Force": "think"}, "api_key": "k"}, request_id="mine")
    sent = script.requests[0].headers
    assert (sent["x-lhrm-force"], sent["authorization"], sent["x-request-id"]) == ("think", "Bearer k", "mine")


def test_model_is_discovered_once(shell):
    models = httpx.Response(200, json={"object": "list", "data": [{"id": "nano", "lhrm": {}}, {"id": "nano-think"}]})
    script = Script(models, ok())
    with shell.session(script, model=None) as lhrm:
        lhrm.do("chat", "q")
        lhrm.do("chat", "q")
    chat = "/v1/chat/completions"
    assert [request.url.path for request in script.requests] == ["/v1/models", chat, chat]
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
@pytest.mark.parametrize("method", ["chat", "stream"])
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
        (httpx.ConnectError("refused"), "ConnectFailedError: refused"),
        (httpx.ConnectTimeout(""), "ConnectFailedError: ConnectTimeout"),
        (httpx.ReadTimeout(""), "RequestTimeoutError: ReadTimeout"),
        (httpx.PoolTimeout(""), "RequestTimeoutError: PoolTimeout"),
        (httpx.RemoteProtocolError("gone"), "TransportError: gone"),
        (httpx.ReadError(""), "TransportError: ReadError"),
    ],
)
@pytest.mark.parametrize("method", ["chat", "stream"])
def test_transport_failures(shell, method, raised, error):
    script = Script(raised)
    with pytest.raises(lhrm_client.TransportError) as caught:
        shell.run(script, method, "q", client={"max_retries": 0})
    kind, _, why = error.partition(": ")
    assert type(caught.value).__name__ == kind
    assert BASE in str(caught.value)
    assert str(caught.value).rstrip(")").endswith(why)


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


@pytest.mark.parametrize("method", ["chat", "stream", "models", "version"])
def test_a_closed_client_says_so(shell, method):
    script = Script(ok())
    with shell.session(script) as lhrm:
        lhrm.do("close")
        with pytest.raises(lhrm_client.ClientClosedError, match="the client is closed") as caught:
            lhrm.do(method, *([] if method in ("models", "version") else ["q"]))
    assert isinstance(caught.value, RuntimeError)
    assert script.requests == []


def test_no_key_in_what_is_printed():
    with LHRM(BASE, "secret") as lhrm:
        assert "secret" not in repr(lhrm)
