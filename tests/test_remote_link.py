"""The HTTP side of a remote engine against servers that break the rules."""

import asyncio
import time
from contextlib import asynccontextmanager, suppress

import pytest
from lhrm_server.engine import EngineError, EngineTimeoutError
from lhrm_server.remote_link import RemoteLink
from lhrm_server.remote_place import Place, Timeouts


@asynccontextmanager
async def answering_raw(*parts: bytes):
    """Listen, answer every request with `parts`, a little apart, and collect what was asked."""
    calls: list[bytes] = []
    over = asyncio.Event()

    async def answer(reader, writer):
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            calls.append(await reader.readuntil(b"\r\n\r\n"))
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.05)
        await over.wait()
        writer.transport.abort()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", calls
        over.set()
        await asyncio.sleep(0.1)


async def drained(stream) -> None:
    async for _ in stream:
        pass


NO_HTTP = {
    "no status line": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "an endless header": b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 70_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("name", NO_HTTP)
async def test_what_is_not_http_is_told_and_not_asked_again(name):
    async with answering_raw(NO_HTTP[name]) as (url, calls):
        link = RemoteLink(Place(url), Timeouts())
        with pytest.raises(EngineError, match="is not HTTP") as failure:
            await link.whole({}, {})
        assert type(failure.value) is EngineError
        assert len(calls) == 1
        await link.close()


@pytest.mark.parametrize("tokens", [1, 9])
async def test_broken_framing_is_an_engine_error(tokens):
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: "
    kind = b"application/json" if tokens == 1 else b"text/event-stream"
    async with answering_raw(head + kind + b"\r\n\r\n" + b"5\r\nabcde\r\n", b"this is no length\r\n") as (url, _):
        link = RemoteLink(Place(url), Timeouts(first_event_s=0.5, idle_s=0.5))
        with pytest.raises(EngineError):
            await (link.whole({}, {}) if tokens == 1 else drained(link.events({}, {})))
        await link.close()


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_close_does_not_wait_for_a_server_that_does_not_read():
    given_up = asyncio.Event()

    async def never_read(_, writer):
        await given_up.wait()
        writer.transport.abort()

    server = await asyncio.start_server(never_read, "127.0.0.1", 0, limit=1 << 10)
    link = RemoteLink(Place(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"), Timeouts(first_event_s=0.3))
    started = time.monotonic()
    with pytest.raises(EngineTimeoutError):
        await link.whole({"prompt": "x" * (16 << 20)}, {})
    await link.close()
    assert time.monotonic() - started < 5
    given_up.set()
    server.close()
    await asyncio.sleep(0.2)
