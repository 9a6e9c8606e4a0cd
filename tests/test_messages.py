import pytest
from lhrm_server.errors import InvalidRequestError
from lhrm_server.messages import parse_messages

from lhrm_train.format import Message


def parse(*messages):
    return parse_messages("messages", list(messages))


def user(content):
    return {"role": "user", "content": content}


def call(call_id, name="f", arguments="{}"):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def calls(*made, content=None):
    return {"role": "assistant", "content": content, "tool_calls": list(made)}


def result(call_id, content="done"):
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def test_roles_and_parts():
    assert parse(
        {"role": "developer", "content": "be brief"},
        {"role": "system", "content": ""},
        user([{"type": "text", "text": "a"}, {"type": "text", "text": " b\n", "cache_control": None}]),
        {"role": "assistant", "content": "c", "tool_calls": [], "refusal": None, "name": None},
        user([]),
    ) == (
        Message("system", "be brief"),
        Message("system", ""),
        Message("user", "a b\n"),
        Message("assistant", "c"),
        Message("user", ""),
    )


@pytest.mark.parametrize("content", [None, "", "ok"])
def test_reasoning_in_history_is_not_rendered(content):
    turn = {"role": "assistant", "content": content, "reasoning": "hm", "reasoning_content": "hm"}
    assert parse(turn) == (Message("assistant", content or ""),)


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("hi", "messages[0]"),
        ({}, "messages[0].role"),
        ({"role": "robot", "content": "x"}, "messages[0].role"),
        ({"role": ["user"], "content": "x"}, "messages[0].role"),
        ({"role": "tool", "content": "x", "tool_call_id": "1"}, "messages[0].tool_call_id"),
        ({"role": "tool", "content": "x"}, "messages[0].tool_call_id"),
        ({"role": "tool", "tool_call_id": "1"}, "messages[0].content"),
        ({"role": "tool", "content": "x", "tool_call_id": 1}, "messages[0].tool_call_id"),
        ({"role": "tool", "content": "x", "tool_call_id": "1", "name": "f"}, "messages[0].name"),
        ({"role": "function", "content": "x", "name": "f"}, "messages[0].role"),
        ({"role": "user"}, "messages[0].content"),
        (user(None), "messages[0].content"),
        (user(3), "messages[0].content"),
        (user({"type": "text", "text": "x"}), "messages[0].content"),
        (user(["x"]), "messages[0].content[0]"),
        (user([{"type": "image_url", "image_url": {"url": "x"}}]), "messages[0].content[0].type"),
        (user([{"type": "text", "text": "a"}, {"type": "text"}]), "messages[0].content[1].text"),
        (user([{"type": "text", "text": "a", "cache_control": {"type": "x"}}]), "messages[0].content[0].cache_control"),
        ({"role": "user", "content": "x", "name": "bob"}, "messages[0].name"),
        ({"role": "user", "content": "x", "reasoning": "hm"}, "messages[0].reasoning"),
        ({"role": "assistant", "content": "x", "reasoning": 3}, "messages[0].reasoning"),
        ({"role": "user", "content": "x", "tool_calls": [{"id": "1"}]}, "messages[0].tool_calls"),
        (calls({"id": "1"}), "messages[0].tool_calls[0].type"),
        (calls({"id": "1", "type": "custom", "function": {}}), "messages[0].tool_calls[0].type"),
        (calls({"type": "function", "function": {"name": "f", "arguments": "{}"}}), "messages[0].tool_calls[0].id"),
        (calls(call("1", "f", {"a": 1})), "messages[0].tool_calls[0].function.arguments"),
        (calls(call("1", "f", "{")), "messages[0].tool_calls[0].function.arguments"),
        (calls(call("1", "f", "[1]")), "messages[0].tool_calls[0].function.arguments"),
        (calls(call("1", "f", "[" * 5000)), "messages[0].tool_calls[0].function.arguments"),
        (calls(call("1", None)), "messages[0].tool_calls[0].function.name"),
        (calls(call("1"), call("1")), "messages[0].tool_calls[1].id"),
        ({"role": "assistant", "content": None, "tool_calls": "f"}, "messages[0].tool_calls"),
    ],
)
def test_what_cannot_be_taken_is_named(message, param):
    with pytest.raises(InvalidRequestError) as caught:
        parse(message)
    assert caught.value.param == param


def test_calls_are_rendered_and_results_are_turns_of_their_own():
    history = (user("go"), calls(call("a", "f", '{"x": 1}'), content="Well."), result("a", "3"), user("and?"))
    assert parse(*history) == (
        Message("user", "go"),
        Message("assistant", 'Well.\n<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>'),
        Message("tool", "3"),
        Message("user", "and?"),
    )
    parts = [{"type": "text", "text": "3"}, {"type": "text", "text": "4"}]
    assert parse(calls(call("a")), result("a", parts))[-1] == Message("tool", "34")


def test_results_come_in_the_order_of_the_calls():
    turns = parse(
        calls(call("a"), call("b"), call("c")), result("c", "3"), result("a", "1"), user("x"), result("b", "2")
    )
    assert [turn.content for turn in turns[1:]] == ["1", "3", "x", "2"]


def test_reasoning_of_a_turn_with_calls_is_not_rendered():
    assert parse({**calls(call("a")), "reasoning": "hm"}) == parse(calls(call("a")))


def test_an_id_may_be_used_again_by_a_later_turn():
    turns = parse(calls(call("a")), result("a", "1"), calls(call("a")), result("a", "2"))
    assert [turn.content for turn in turns if turn.role == "tool"] == ["1", "2"]


@pytest.mark.parametrize(
    "history",
    [
        (user("x"), calls(call("a")), result("b")),
        (user("x"), result("a"), calls(call("a"))),
        (calls(call("a")), result("a"), result("a")),
    ],
)
def test_a_result_that_answers_no_call(history):
    with pytest.raises(InvalidRequestError) as caught:
        parse(*history)
    position = next(i for i, turn in reversed([*enumerate(history)]) if turn["role"] == "tool")
    assert caught.value.param == f"messages[{position}].tool_call_id"


def test_place_of_a_later_message():
    with pytest.raises(InvalidRequestError) as caught:
        parse(user("ok"), user(1))
    assert caught.value.param == "messages[1].content"


@pytest.mark.parametrize(("value", "code"), [([], "empty_array"), ("hi", "invalid_type"), ({"a": 1}, "invalid_type")])
def test_the_list_itself(value, code):
    with pytest.raises(InvalidRequestError) as caught:
        parse_messages("messages", value)
    assert (caught.value.param, caught.value.code) == ("messages", code)
