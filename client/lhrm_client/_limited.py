"""Send a request and end its response at the deadline: the one thing that the two shells do in different ways.

httpx limits single steps, and a server that sends byte by byte passes every one of them. A task can be stopped
wherever it waits. A thread cannot: at the deadline another one shuts the socket down, which ends any read. httpx
shows the socket with the response, so what comes before the headers has the limits of its steps alone.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import cast

import httpx

from ._call import Deadline


def send(http: httpx.Client, request: httpx.Request, deadline: Deadline) -> httpx.Response:
    """Return the response, its body unread. Reading it raises httpx.ReadTimeout at the deadline."""
    response = http.send(request, stream=True)
    if deadline.limit_s is not None:
        response.stream = _EndedBody(response, deadline)
    return response


async def asend(http: httpx.AsyncClient, request: httpx.Request, deadline: Deadline) -> httpx.Response:
    """Return the response, its body unread. This and reading it raise httpx.ReadTimeout at the deadline."""
    if deadline.limit_s is None:
        return await http.send(request, stream=True)
    async with _within(deadline):
        response = await http.send(request, stream=True)
    response.stream = _AsyncEndedBody(response, deadline)
    return response


class _EndedBody(httpx.SyncByteStream):
    """The body of a response up to the deadline."""

    def __init__(self, response: httpx.Response, deadline: Deadline) -> None:
        self._body = cast("httpx.SyncByteStream", response.stream)
        self._deadline = deadline
        # A transport of a test has no connection.
        connection = response.extensions.get("network_stream")
        self._socket: socket.socket | None = connection and connection.get_extra_info("socket")
        self._closing = threading.Lock()
        self._timer = threading.Timer(max(0.0, deadline.left_s()), self._shut_down)
        self._timer.daemon = True
        self._timer.start()

    def __iter__(self) -> Iterator[bytes]:
        try:
            for part in self._body:
                yield part
                self._deadline.check()
        except httpx.TransportError:
            # After the deadline a connection that broke is one that was shut down.
            self._deadline.check()
            raise
        # So is one that ended in order, where its end is the end of the body.
        self._deadline.check()

    def close(self) -> None:
        # Closing hands the connection on to the next call, whose socket this one must not touch.
        with self._closing:
            self._socket = None
        self._timer.cancel()
        self._body.close()

    def _shut_down(self) -> None:
        with self._closing, suppress(OSError):
            if self._socket is not None:
                # SSLSocket's own method forgets its keys, and what is read after it would be ciphertext.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class _AsyncEndedBody(httpx.AsyncByteStream):
    """The body of a response up to the deadline."""

    def __init__(self, response: httpx.Response, deadline: Deadline) -> None:
        self._body = cast("httpx.AsyncByteStream", response.stream)
        self._deadline = deadline

    async def __aiter__(self) -> AsyncIterator[bytes]:
        parts = aiter(self._body)
        while True:
            async with _within(self._deadline):
                part = await anext(parts, None)
            if part is None:
                return
            yield part

    async def aclose(self) -> None:
        await self._body.aclose()


@asynccontextmanager
async def _within(deadline: Deadline) -> AsyncIterator[None]:
    deadline.check()
    limit = asyncio.timeout(deadline.left_s())
    try:
        async with limit:
            yield
    except TimeoutError as exc:
        if limit.expired():
            raise deadline.error() from exc
        # One that is not ours comes from a transport.
        raise
