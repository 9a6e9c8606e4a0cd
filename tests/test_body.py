import json

import pytest
from lhrm_server.body import ClientGoneError, parse_object, read_body
from lhrm_server.errors import BodyTooLargeError, InvalidRequestError


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b'{"a": 1} x', "Extra data"),
        (b"[]", "not an object"),
        (b'"text"', "not an object"),
        (b"null", "not an object"),
        (b'{"a": NaN}', "NaN is not"),
        (b'{"a": -Infinity}', "-Infinity is not"),
        (b'{"a": "\xff"}', "UTF-8"),
        (b'{"a": "\xed\xa0\x80"}', "UTF-8"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (b'{"a": 1, "a": 2}', "'a' occurs twice"),
        (b'{"a": ' + b"9" * 5000 + b"}", "digits"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": ' * 100_000, "nested too deeply"),
        ("\ufeff{}".encode(), "BOM"),
        (json.dumps({"a": 1}).encode("utf-16"), "UTF-8"),
    ],
)
def test_everything_else_than_an_object_is_a_named_error(raw, why):
    with pytest.raises(InvalidRequestError, match=why) as caught:
        parse_object(raw)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


def test_object_with_escaped_characters_is_read():
    assert parse_object('{"a": "\\ud83e\\udd14 \\u0041 ü"}'.encode()) == {"a": "🤔 A ü"}


def sender(*messages):
    queue = list(messages)

    async def receive():
        return queue.pop(0)

    return receive


def part(data: bytes, more: bool = False):
    return {"type": "http.request", "body": data, "more_body": more}


async def test_body_is_joined_up_to_the_limit():
    assert await read_body(sender(part(b"ab", True), part(b"", True), part(b"cd")), "4", 4) == b"abcd"
    assert await read_body(sender(part(b"abcd")), None, 4) == b"abcd"


async def test_large_body_is_refused_from_its_declared_length_before_it_is_read():
    with pytest.raises(BodyTooLargeError, match="4 bytes"):
        await read_body(sender(), "5", 4)


async def test_large_body_is_refused_when_the_declared_length_is_absent_or_lies():
    for declared in (None, "1", "x"):
        with pytest.raises(BodyTooLargeError):
            await read_body(sender(part(b"abc", True), part(b"de", True)), declared, 4)


async def test_disconnect_while_reading():
    with pytest.raises(ClientGoneError):
        await read_body(sender(part(b"abc", True), {"type": "http.disconnect"}), None, 10)
