import pytest
from lhrm_server.errors import InvalidRequestError
from lhrm_server.messages import parse_messages

from lhrm_train.format import Message


def parse(*messages):
    return parse_messages("messages", list(messages))


def user(content):
    return {"role": "user", "content": content}


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
        ({"role": "tool", "content": "x", "tool_call_id": "1"}, "messages[0].role"),
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
        ({"role": "assistant", "tool_calls": [{"id": "1"}]}, "messages[0].tool_calls"),
    ],
)
def test_what_cannot_be_taken_is_named(message, param):
    with pytest.raises(InvalidRequestError) as caught:
        parse(message)
    assert caught.value.param == param


def test_place_of_a_later_message():
    with pytest.raises(InvalidRequestError) as caught:
        parse(user("ok"), user(1))
    assert caught.value.param == "messages[1].content"


@pytest.mark.parametrize(("value", "code"), [([], "empty_array"), ("hi", "invalid_type"), ({"a": 1}, "invalid_type")])
def test_the_list_itself(value, code):
    with pytest.raises(InvalidRequestError) as caught:
        parse_messages("messages", value)
    assert (caught.value.param, caught.value.code) == ("messages", code)
