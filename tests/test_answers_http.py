"""Budgets, constraints, tools, choices and visibility over HTTP: the official client, stock vLLM, the shipped nano."""

import json

import openai
import pytest

pytestmark = pytest.mark.engine

HARD, EASY = "What is 48371+92615?", "What is the capital of France?"
SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "integer", "minimum": 0, "maximum": 999999}, "sure": {"type": "boolean"}},
    "required": ["answer", "sure"],
    "additionalProperties": False,
}
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}},
            "required": ["a"],
            "additionalProperties": False,
        },
    },
}
MODES = ["think", "no_think"]


@pytest.fixture(scope="module")
def client(real_gateway):
    with openai.OpenAI(base_url=f"{real_gateway}/v1", api_key="none", max_retries=0) as api:
        yield api


@pytest.fixture
def ask(client):
    """Ask twice, streaming and not; assert that both agree and return the reply."""

    def run(text=HARD, mode=None, **fields):
        asked = {
            "model": "lhrm-nano",
            "messages": [{"role": "user", "content": text}],
            "temperature": 0,
            "extra_headers": {"X-LHRM-Mode": mode or "auto"},
            **fields,
        }
        reply = client.chat.completions.create(**asked)
        chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
        agree(reply, chunks)
        return reply

    return run


def agree(reply, chunks):
    for choice in reply.choices:
        mine = [c for chunk in chunks for c in chunk.choices if c.index == choice.index]
        assert mine[0].delta.role == "assistant"
        assert "".join(c.delta.content or "" for c in mine) == (choice.message.content or "")
        reasoning = "".join(getattr(c.delta, "reasoning", None) or "" for c in mine)
        assert reasoning == (getattr(choice.message, "reasoning", None) or "")
        assert [c.finish_reason for c in mine if c.finish_reason] == [choice.finish_reason]
        logprobs = [entry for c in mine if c.logprobs for entry in c.logprobs.content]
        wanted = choice.logprobs.content if choice.logprobs else []
        assert [entry.token for entry in logprobs] == [entry.token for entry in wanted]
        calls = [call for c in mine for call in c.delta.tool_calls or []]
        written = {}
        for call in calls:
            written[call.index] = written.get(call.index, "") + call.function.arguments
        assert list(written.values()) == [call.function.arguments for call in choice.message.tool_calls or []]
        assert mine[-1].lhrm == choice.lhrm
    usage = chunks[-1].usage
    assert usage == reply.usage
    assert chunks[-1].lhrm["reasoning_tokens"] == reply.lhrm["reasoning_tokens"]


@pytest.mark.parametrize("budget", [1, 2, 5, 9])
def test_budgets_are_exact(ask, budget):
    reply = ask(mode="think", extra_body={"thinking_token_budget": budget})
    assert reply.usage.completion_tokens_details.reasoning_tokens == budget
    assert reply.lhrm["reasoning_ended_by"] == "budget"


@pytest.mark.parametrize("mode", MODES)
def test_a_json_schema(ask, mode):
    plain = ask(mode=mode)
    reply = ask(
        mode=mode,
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}},
    )
    assert set(json.loads(reply.choices[0].message.content)) == {"answer", "sure"}
    assert reply.choices[0].message.reasoning == plain.choices[0].message.reasoning


def test_a_schema_that_the_engine_cannot_follow_is_a_400(ask):
    schema = {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}
    with pytest.raises(openai.BadRequestError) as refused:
        ask(mode="no_think", response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}})
    assert refused.value.param == "response_format"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "add"}}])
def test_tools_that_must_be_called(ask, mode, choice):
    reply = ask(mode=mode, tools=[ADD], tool_choice=choice, parallel_tool_calls=False)
    message = reply.choices[0].message
    assert message.content is None
    assert {call.function.name for call in message.tool_calls} == {"add"}
    assert all(set(json.loads(call.function.arguments)) == {"a"} for call in message.tool_calls)
    assert reply.choices[0].finish_reason == ("tool_calls" if choice == "required" else "stop")


@pytest.mark.parametrize("mode", MODES)
def test_stop_strings(ask, mode):
    content = ask(mode=mode).choices[0].message.content
    reply = ask(mode=mode, stop=[content[2:4], "never"])
    assert reply.choices[0].message.content == content[: content.index(content[2:4])]
    assert reply.choices[0].stop_reason == content[2:4]


@pytest.mark.parametrize("mode", [*MODES, "auto"])
def test_three_choices_and_log_probabilities(ask, mode):
    reply = ask(
        "Hello! Tell me a story.", mode=mode, n=3, seed=3, temperature=1.5, max_tokens=50, logprobs=True, top_logprobs=2
    )
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    for choice in reply.choices:
        spelled = bytes(byte for entry in choice.logprobs.content for byte in entry.bytes)
        assert spelled.decode("utf-8", "replace") == choice.message.content
        assert all(len(entry.top_logprobs) == 2 for entry in choice.logprobs.content)
    for name in ("reasoning_tokens", "answer_tokens", "overhead_tokens"):
        assert reply.lhrm[name] == sum(choice.lhrm[name] for choice in reply.choices)


def test_hidden_and_inline_reasoning(ask):
    plain = ask(mode="think")
    hidden = ask(mode="think", extra_body={"include_reasoning": False})
    inline = ask(mode="think", extra_body={"separate_reasoning": False})
    message = plain.choices[0].message
    assert not hasattr(hidden.choices[0].message, "reasoning")
    assert hidden.choices[0].message.content == message.content
    assert inline.choices[0].message.content == f"<think>{message.reasoning}</think>{message.content}"
    assert plain.usage == hidden.usage == inline.usage
