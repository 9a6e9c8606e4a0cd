"""The helpers for the official client: its replies and chunks over a real socket, and the same as mappings."""

from __future__ import annotations

import openai
import pytest
from client_shell import ACCOUNTING, BODY
from fake_gateway import MODEL, fake_gateway, scripted
from lhrm_client import ArgumentError, Decision, ResponseFormatError
from lhrm_client.openai import accounting_of, decision_of, extra_body, mode_of, reasoning_of, savings_of

QUESTION = {"model": MODEL, "messages": [{"role": "user", "content": "6 times 7?"}]}


@pytest.fixture(scope="module")
def api(loop_thread, nano_tokenizer):
    script = scripted(nano_tokenizer, "6 times 7", "é is 42", p_think=0.8)
    with (
        fake_gateway(loop_thread, nano_tokenizer, script) as (url, _),
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield client.chat.completions


def test_a_reply(api):
    reply = api.create(**QUESTION)
    for form in (reply, reply.model_dump()):
        assert mode_of(form) == "think"
        assert decision_of(form) == Decision(mode="think", source="model", p_think=0.8, threshold=0.5)
        assert savings_of(form).tokens == 0
        assert accounting_of(form).reasoning_tokens == reply.usage.completion_tokens_details.reasoning_tokens
        assert reasoning_of(form) == "6 times 7"


def test_a_stream(api):
    chunks = list(api.create(**QUESTION, stream=True))
    assert mode_of(chunks[0]) == "think"
    assert [accounting_of(chunk) is None for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
    assert savings_of(chunks[-1]).tokens == 0
    assert "".join(reasoning_of(chunk) or "" for chunk in chunks) == "6 times 7"
    usage_asked = list(api.create(**QUESTION, stream=True, stream_options={"include_usage": True}))
    assert accounting_of(usage_asked[-1]).savings.tokens == 0
    assert reasoning_of(usage_asked[-1]) is None


@pytest.mark.parametrize(
    ("steering", "mode", "source"),
    [
        ({}, "think", "model"),
        ({"mode": "auto"}, "think", "model"),
        ({"mode": "think"}, "think", "request"),
        ({"mode": "no_think"}, "no_think", "request"),
        ({"think_threshold": 0.9}, "no_think", "model"),
        ({"mode": "think", "thinking_budget": 1}, "think", "request"),
    ],
)
def test_steering(api, steering, mode, source):
    reply = api.create(**QUESTION, extra_body=extra_body(**steering))
    assert (mode_of(reply), decision_of(reply).source) == (mode, source)
    if "thinking_budget" in steering:
        assert accounting_of(reply).reasoning_ended_by == "budget"
    if mode == "no_think":
        assert reasoning_of(reply) is None


def test_choices(api):
    reply = api.create(**QUESTION, n=2, extra_body=extra_body(mode="think"))
    assert [reasoning_of(reply, choice) for choice in range(3)] == ["6 times 7", "6 times 7", None]


def test_steering_that_contradicts_itself():
    with pytest.raises(ArgumentError, match=r"think_threshold=0\.5"):
        extra_body(mode="think", think_threshold=0.5)


@pytest.mark.parametrize("foreign", [{}, {"lhrm": None}, {"lhrm": "x"}, {"choices": []}, object(), None])
def test_a_reply_of_another_server_says_nothing(foreign):
    for read in (accounting_of, decision_of, mode_of, reasoning_of, savings_of):
        assert read(foreign) is None


def test_what_is_malformed_is_an_error():
    with pytest.raises(ResponseFormatError, match="mode"):
        mode_of({**BODY, "lhrm": {**ACCOUNTING, "mode": "perhaps"}})
    with pytest.raises(ResponseFormatError, match="ended_by"):
        savings_of({**BODY, "lhrm": {**ACCOUNTING, "ended_by": None}})
