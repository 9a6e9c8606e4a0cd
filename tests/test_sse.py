import asyncio

import pytest
from lhrm_server.sse import EventStream
from lhrm_server.wire import DONE, KEEP_ALIVE


class Connection:
    """Collects what is sent."""

    def __init__(self):
        self.messages = []

    async def send(self, message):
        self.messages.append(message)

    @property
    def starts(self):
        return [message for message in self.messages if message["type"] == "http.response.start"]

    @property
    def bodies(self):
        return [message["body"] for message in self.messages if message["type"] == "http.response.body"]


async def test_headers_leave_with_the_first_frame_and_once():
    link = Connection()
    stream = EventStream(link.send, [("x-a", "b")])
    assert (stream.opened, link.messages) == (False, [])
    await stream.write([b"1", b"2"])
    await stream.write([b"3"])
    await stream.close(DONE)
    assert link.bodies == [b"12", b"3", DONE]
    (start,) = link.starts
    assert start["status"] == 200
    assert (b"x-a", b"b") in start["headers"]
    assert link.messages[-1]["more_body"] is False


async def test_writing_no_frame_opens_the_stream_only():
    link = Connection()
    stream = EventStream(link.send, [])
    await stream.write([])
    assert stream.opened
    assert (len(link.starts), link.bodies) == (1, [])


async def test_silence_is_filled_with_comments_after_the_hold():
    link = Connection()
    stream = EventStream(link.send, [])
    async with stream.kept_alive(0.4, 0.03):
        await asyncio.sleep(0.02)
        assert link.messages == []
        await asyncio.sleep(0.7)
    sent = len(link.bodies)
    assert sent >= 2
    assert set(link.bodies) == {KEEP_ALIVE}
    await asyncio.sleep(0.1)
    assert len(link.bodies) == sent, "a comment after the stream was over"


async def test_no_comment_while_frames_flow():
    link = Connection()
    stream = EventStream(link.send, [])
    async with stream.kept_alive(0.05, 5):
        for _ in range(10):
            await stream.write([b"x"])
            await asyncio.sleep(0.02)
    assert set(link.bodies) == {b"x"}


async def test_a_comment_never_overtakes_headers_or_a_frame_that_waits():
    link = Connection()

    async def slow_headers(message):
        if message["type"] == "http.response.start":
            await asyncio.sleep(0.1)
        await link.send(message)

    stream = EventStream(slow_headers, [])
    async with stream.kept_alive(0.01, 0.01):
        await stream.write([b"frame"])
    assert len(link.starts) == 1
    assert link.messages[0] is link.starts[0]
    assert link.bodies[0] == b"frame"


async def test_a_connection_that_fails_under_a_comment_does_not_fail_the_work():
    async def broken(_):
        raise OSError

    async with EventStream(broken, []).kept_alive(0.01, 0.01):
        await asyncio.sleep(0.05)


async def test_errors_inside_pass_through():
    stream = EventStream(Connection().send, [])
    with pytest.raises(ZeroDivisionError):
        async with stream.kept_alive(0.01, 0.01):
            raise ZeroDivisionError
