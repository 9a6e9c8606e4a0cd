"""The HTTP side of a remote engine: one pool of connections, its time-outs, retries and errors."""

from __future__ import annotations

import asyncio
import json
import random
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp
from yarl import URL

from .engine import EngineDeadError, EngineError, EngineTimeoutError, EngineUnreachableError
from .event_stream import LONGEST_EVENT_BYTES, EventDecoder
from .remote_place import Place, Timeouts
from .remote_reply import DONE, error_of_response

COMPLETIONS = "/v1/completions"
EVENT_STREAM, JSON = "text/event-stream", "application/json"
RETRY_PAUSES_S = (0.1, 0.4)
# Shorter than the 5 s after which vLLM's server closes an idle connection: a call must not meet the closing.
KEEPALIVE_S = 2.0
TAIL_S = 1.0
# What a server does not take for so long is given up. Without it a call that timed out would hold its socket for as
# long as the server neither reads nor goes away.
UNSENT_S = 30.0
LONGEST_HEADER_BYTES = 1 << 16
# aiohttp raises RuntimeError where the framing of a body broke while nobody was reading it.
BROKEN = (aiohttp.ClientError, RuntimeError)
CUT = "the engine closed the stream before the end of the answer"
T = TypeVar("T")


@dataclass(frozen=True)
class Answer:
    """A response that was read to its end."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class RemoteLink:
    """Speaks HTTP with one base URL, inside a running event loop. Every error it raises is an EngineError."""

    def __init__(self, place: Place, timeouts: Timeouts) -> None:
        self.url = place.url
        self._timeouts = timeouts
        self._closed = False
        self._waiting: set[asyncio.Timeout] = set()
        self._completions = URL(place.url + COMPLETIONS)
        headers = {"Accept-Encoding": "identity", "User-Agent": "lhrm-serve"}
        if place.api_key is not None:
            headers["Authorization"] = f"Bearer {place.api_key}"
        # No limit on connections: the gateway's own admission is the one queue. Neither proxies nor .netrc of the
        # environment have a say in a call between two servers, nor have cookies.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S, socket_factory=_socket),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, connect=timeouts.connect_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            max_line_size=LONGEST_HEADER_BYTES,
            max_field_size=LONGEST_HEADER_BYTES,
        )

    async def status(self, path: str) -> int:
        """Return the status of a GET, within `health_s`."""
        return (await self._exchange("GET", path, None, self._timeouts.health_s)).status

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the JSON object that a call of the start answers with."""
        answer = await self._exchange(method, path, body, self._timeouts.control_s)
        if answer.status != 200:
            raise error_of_response(answer.status, answer.headers, answer.content)
        try:
            value = json.loads(answer.content)
        except ValueError as exc:
            raise EngineError(f"{method} {path} gives no JSON") from exc
        if not isinstance(value, dict):
            raise EngineError(f"{method} {path} gives no JSON object")
        return value

    async def events(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> AsyncGenerator[bytes, None]:
        """Yield the data of each event of one streamed completion, ``[DONE]`` left out.

        Closing the generator closes the connection, which aborts the request in vLLM. Raises EngineError when the
        stream is cut, even at a point where it might have been over.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeouts.total_s
        until = self._first_until()
        async with self._response(body, headers, until, EVENT_STREAM) as response:
            decoder = EventDecoder()
            while True:
                for data in _decoded(decoder, await self._within(until, _next_chunk(response))):
                    if data == DONE:
                        await self._finish(response)
                        return
                    yield data
                    until = min(deadline, loop.time() + self._timeouts.idle_s)

    async def whole(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> bytes:
        """Return the body of one completion that is not streamed, within `first_event_s`. Raises EngineError."""
        until = self._first_until()
        async with self._response(body, headers, until, JSON) as response:
            try:
                return await self._within(until, _read(response))
            except BROKEN as exc:
                raise EngineError(CUT) from exc

    async def close(self) -> None:
        """Fail what waits now with EngineDeadError and close every connection; idempotent."""
        self._closed = True
        now = asyncio.get_running_loop().time()
        for waiting in self._waiting:
            if not waiting.expired():
                waiting.reschedule(now)
        with suppress(TimeoutError):
            async with asyncio.timeout(TAIL_S):
                await self._session.close()

    def _first_until(self) -> float:
        timeouts = self._timeouts
        return asyncio.get_running_loop().time() + min(timeouts.first_event_s, timeouts.total_s)

    async def _exchange(self, method: str, path: str, body: Mapping[str, Any] | None, limit_s: float) -> Answer:
        until = asyncio.get_running_loop().time() + limit_s
        try:
            return await self._within(until, self._answer(method, path, body))
        except aiohttp.ClientConnectionError as exc:
            raise self._unreachable(exc) from exc
        except BROKEN as exc:
            raise self._no_http(exc) from exc

    async def _answer(self, method: str, path: str, body: Mapping[str, Any] | None) -> Answer:
        asked = self._session.request(method, self.url + path, json=body, allow_redirects=False)
        async with asked as response:
            return Answer(response.status, response.headers, await _read(response))

    @asynccontextmanager
    async def _response(
        self, body: Mapping[str, Any], headers: Mapping[str, str], until: float, kind: str
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        response = await self._opened(body, headers, until, kind)
        try:
            yield response
        finally:
            # Closes the connection, unless the body was read to its end and the connection is free again.
            response.close()

    async def _opened(
        self, body: Mapping[str, Any], headers: Mapping[str, str], until: float, kind: str
    ) -> aiohttp.ClientResponse:
        """Return the open response; a call that met no server or no room is repeated, for nothing was begun."""
        for pause_s in (*RETRY_PAUSES_S, None):
            try:
                response = await self._send(body, headers, until)
            except aiohttp.ClientConnectionError as exc:
                # Who did not answer for seconds has been waited for; who is not trusted will not be in a moment.
                if pause_s is None or isinstance(exc, aiohttp.ConnectionTimeoutError | aiohttp.ClientSSLError):
                    raise self._unreachable(exc) from exc
            except BROKEN as exc:
                raise self._no_http(exc) from exc
            else:
                if pause_s is None or response.status != 503 or "retry-after" in response.headers:
                    return await self._accepted(response, until, kind)
                response.close()
            await self._within(until, asyncio.sleep(pause_s * random.uniform(0.5, 1.5)))
        raise AssertionError("the last attempt returns or raises")

    async def _send(self, body: Mapping[str, Any], headers: Mapping[str, str], until: float) -> aiohttp.ClientResponse:
        return await self._within(until, self._call(body, headers))

    async def _call(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        return await self._session.post(self._completions, json=body, headers=headers, allow_redirects=False)

    async def _accepted(self, response: aiohttp.ClientResponse, until: float, kind: str) -> aiohttp.ClientResponse:
        given = response.headers.get("content-type", "").lower()
        if response.status == 200 and given.startswith(kind):
            return response
        try:
            content = await self._within(until, _read(response))
        except BROKEN:
            content = b""
        finally:
            response.close()
        if response.status == 200:
            raise EngineError(f"the engine answers with {given or 'no content type'} in place of {kind}")
        raise error_of_response(response.status, response.headers, content)

    async def _finish(self, response: aiohttp.ClientResponse) -> None:
        """Read the end of a body after its last event, for only then its connection can be used again."""
        with suppress(EngineError, *BROKEN):
            await self._within(asyncio.get_running_loop().time() + TAIL_S, response.content.readany())

    async def _within(self, until: float, step: Awaitable[T]) -> T:
        """Await one step of a call. Raises EngineTimeoutError at `until`, EngineDeadError when the link closes."""
        if self._closed:
            if asyncio.iscoroutine(step):
                step.close()
            raise EngineDeadError("the link to the remote engine is closed")
        try:
            async with asyncio.timeout_at(until) as waiting:
                self._waiting.add(waiting)
                try:
                    return await step
                finally:
                    self._waiting.discard(waiting)
        except aiohttp.ClientError:
            raise  # a connection that took too long is a TimeoutError too, but means that nothing answers
        except TimeoutError as exc:
            if self._closed:
                raise EngineDeadError("the link to the remote engine was closed") from exc
            raise EngineTimeoutError(f"the engine at {self.url} did not answer in time") from exc

    def _unreachable(self, exc: aiohttp.ClientError) -> EngineUnreachableError:
        why = " ".join(str(exc).split()) or type(exc).__name__
        if isinstance(exc, aiohttp.ClientSSLError):
            return EngineUnreachableError(f"no trusted TLS connection to {self.url} (SSL_CERT_FILE adds a CA): {why}")
        return EngineUnreachableError(f"nothing answers at {self.url}: {why}")

    def _no_http(self, exc: Exception) -> EngineError:
        return EngineError(f"what answers at {self.url} is not HTTP: {' '.join(str(exc).split())}")


async def _next_chunk(response: aiohttp.ClientResponse) -> bytes:
    """Return the next bytes of a body. Its end comes after ``[DONE]``, so here it is a cut, however it looks."""
    try:
        chunk = await response.content.readany()
    except BROKEN as exc:
        raise EngineError(CUT) from exc
    if not chunk:
        raise EngineError(CUT)
    return chunk


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Return a whole body. Raises EngineError for one that is longer than an event of a stream may be."""
    parts, size = [], 0
    async for chunk in response.content.iter_any():
        parts.append(chunk)
        size += len(chunk)
        if size > LONGEST_EVENT_BYTES:
            raise EngineError(f"the engine sent more than {LONGEST_EVENT_BYTES} bytes in one answer")
    return b"".join(parts)


def _socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol = address[:3]
    made = socket.socket(family, kind, protocol)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNSENT_S * 1000))
    return made


def _decoded(decoder: EventDecoder, chunk: bytes) -> list[bytes]:
    try:
        return decoder.feed(chunk)
    except ValueError as exc:
        raise EngineError(f"the engine sent {exc}") from exc
