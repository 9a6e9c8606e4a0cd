"""Tools and answers as pydantic models: what is sent, and what comes back over a real socket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Literal, TypeVar

import pytest
from client_shell import ACCOUNTING, BODY, Script, Shell, ok
from fake_gateway import fake_gateway
from lhrm_client import ArgumentError, BadRequestError, LHRMError, ParseError, ToolCall, tool_result
from lhrm_server import engine_fake
from pydantic import BaseModel, Field

T = TypeVar("T")


class City(BaseModel):
    """A city of the world."""

    name: Literal["Paris", "Tokyo"]
    people: int = Field(default=0, ge=0)


class Undescribed(BaseModel):
    callback: Callable[[], None]


class Box(BaseModel, Generic[T]):
    value: T


SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
CALL = '[{"name": "City", "parameters": {"name": "Paris", "people": 2}}]'


@pytest.fixture(params=["sync", "async"])
def shell(request) -> Shell:
    return Shell(request.param == "async")


def sent(shell: Shell, **options) -> dict:
    script = Script(ok())
    shell.chat(script, "q", **options)
    return script.body


def test_a_model_as_answer_is_sent_as_its_schema(shell):
    body = sent(shell, answer_type=City)
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "City", "schema": City.model_json_schema()},
    }


def test_a_schema_as_answer_is_sent_as_it_is(shell):
    body = sent(shell, answer_type=SCHEMA)
    assert body["response_format"] == {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}


def test_models_and_mappings_as_tools(shell):
    plain = {"type": "function", "function": {"name": "clock"}}
    body = sent(shell, tools=[City, plain], tool_choice=City)
    first, second = body["tools"]
    schema = City.model_json_schema()
    assert schema.pop("description") == "A city of the world."
    assert first == {
        "type": "function",
        "function": {"name": "City", "description": "A city of the world.", "parameters": schema},
    }
    assert second == plain
    assert body["tool_choice"] == {"type": "function", "function": {"name": "City"}}
    assert sent(shell, tools=[plain], tool_choice="required")["tool_choice"] == "required"


def test_names_are_what_the_wire_allows(shell):
    body = sent(shell, tools=[Box[int]], answer_type=Box[str])
    assert body["tools"][0]["function"]["name"] == "Box_int_"
    assert "description" not in body["tools"][0]["function"]
    assert body["response_format"]["json_schema"]["name"] == "Box_str_"


@pytest.mark.parametrize(("option", "named"), [("answer_type", "answer_type="), ("tools", r"tools\[0\]=")])
def test_a_model_without_a_schema_is_refused(shell, option, named):
    value = Undescribed if option == "answer_type" else [Undescribed]
    with pytest.raises(ArgumentError, match=f"{named}Undescribed"):
        sent(shell, **{option: value})


@pytest.mark.parametrize(
    ("content", "named"), [('{"name": "Rome"}', "name: "), ("Paris", "Invalid JSON"), ("{", "JSON"), ("", "JSON")]
)
def test_an_answer_that_does_not_fit(shell, content, named):
    choice = {**BODY["choices"][0], "message": {"role": "assistant", "content": content}}
    block = {**ACCOUNTING, "ended_by": "length"}
    result = shell.chat(Script(ok(choices=[choice], lhrm=block)), "q", answer_type=City)
    with pytest.raises(ParseError, match=rf"the answer \(ended by length\) does not fit City: .*{named}") as caught:
        result.answer_as(City)
    assert (caught.value.request_id, caught.value.body) == ("req-1", content)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, LHRMError)


def test_arguments_that_do_not_fit():
    call = ToolCall(id="c1", name="City", arguments='{"name": 5}')
    with pytest.raises(ParseError, match=r"the call c1 of City does not fit City: name: ") as caught:
        call.arguments_as(City)
    assert caught.value.body == '{"name": 5}'


def test_the_result_of_a_tool_is_a_turn():
    call = ToolCall(id="c1", name="City", arguments="{}")
    assert tool_result(call, "é") == {"role": "tool", "tool_call_id": "c1", "content": "é"}
    assert tool_result(call, {"é": [1]})["content"] == '{"é": [1]}'
    with pytest.raises(ArgumentError, match="cannot be sent as JSON"):
        tool_result(call, {"é": object()})


@pytest.fixture(scope="module")
def url(loop_thread, nano_tokenizer):
    def script(prompt_ids):
        text = CALL if "call" in nano_tokenizer.decode(prompt_ids) else '{"name": "Tokyo", "people": 3}'
        return engine_fake.Script(grammar_ids=(*nano_tokenizer.encode_text(text), nano_tokenizer.turn_end_id))

    with fake_gateway(loop_thread, nano_tokenizer, script) as (url, _):
        yield url


@pytest.mark.parametrize("mode", ["think", "no_think"])
@pytest.mark.parametrize("method", ["chat", "stream"])
def test_an_answer_as_a_model_over_the_wire(url, shell, method, mode):
    reply = Shell(shell.asynchronous, url).run(None, method, "Which city?", answer_type=City, mode=mode)
    result = reply if method == "chat" else reply[-1].result
    assert result.answer_as(City) == City(name="Tokyo", people=3)
    assert result.mode == mode
    assert (result.reasoning is None) == (mode == "no_think")


@pytest.mark.parametrize("method", ["chat", "stream"])
def test_a_tool_call_and_its_result_over_the_wire(url, shell, method):
    with Shell(shell.asynchronous, url).session() as lhrm:
        conversation = lhrm.get("conversation", mode="no_think")
        reply = conversation.do(method, "call", tools=[City], tool_choice="required")
        result = reply if method == "chat" else reply[-1].result
        (call,) = result.tool_calls
        assert (call.name, call.arguments_as(City)) == ("City", City(name="Paris", people=2))
        assert (result.answer, result.finish_reason, result.ended_by) == ("", "tool_calls", "tool_calls")
        after = conversation.do("chat", [tool_result(call, {"sunny": True})])
        assert after.answer
        roles = [turn["role"] for turn in conversation.wrapped.turns.messages]
        assert roles == ["user", "assistant", "tool", "assistant"]


def test_a_result_without_its_call_is_refused(url, shell):
    call = ToolCall(id="c1", name="City", arguments="{}")
    with pytest.raises(BadRequestError) as caught:
        Shell(shell.asynchronous, url).run(None, "chat", [{"role": "user", "content": "q"}, tool_result(call, "x")])
    assert "messages[1]" in caught.value.param
