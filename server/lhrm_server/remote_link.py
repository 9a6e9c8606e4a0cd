"""The HTTP side of a remote engine: one pool of connections, its time-outs, retries and errors."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from .engine import EngineDeadError, EngineError, EngineTimeoutError, EngineUnreachableError
from .event_stream import EventDecoder
from .remote_reply import DONE, error_of_response

COMPLETIONS = "/v1/completions"
EVENT_STREAM, JSON = "text/event-stream", "application/json"
RETRY_PAUSES_S = (0.1, 0.4)
# Shorter than the 5 s after which vLLM's server closes an idle connection: a call must not meet the closing.
KEEPALIVE_S = 2.0
TAIL_S = 1.0
CUT = "the engine closed the stream before the end of the answer"
T = TypeVar("T")


@dataclass(frozen=True)
class Timeouts:
    """Seconds that each part of a call may take.

    `first_event_s` includes the wait in the engine's queue; `idle_s` is the longest silence between two events, and
    comments that keep the connection alive do not break it; `total_s` holds from the call to its last event, the
    time included in which the caller does not read; `control_s` is for each question at the start.
    """

    connect_s: float = 5.0
    first_event_s: float = 300.0
    idle_s: float = 60.0
    total_s: float = 3600.0
    control_s: float = 30.0
    health_s: float = 2.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise ValueError(f"{name}={value!r}: expected more than 0")


@dataclass(frozen=True)
class Place:
    """Where the engine listens, without a trailing ``/v1``. Raises ValueError on what is not a plain HTTP URL."""

    url: str
    api_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"engine URL {self.url!r}: expected http://host:port or https://host:port")
        if parts.username is not None or parts.query or parts.fragment:
            raise ValueError("engine URL: expected no user name, query or fragment; the key has its own option")
        object.__setattr__(self, "url", self.url.rstrip("/").removesuffix("/v1"))


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
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=None, connect=timeouts.connect_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
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
                return await self._within(until, response.read())
            except aiohttp.ClientError as exc:
                raise EngineError(CUT) from exc

    async def close(self) -> None:
        """Fail what waits now with EngineDeadError and close every connection; idempotent."""
        self._closed = True
        now = asyncio.get_running_loop().time()
        for waiting in self._waiting:
            if not waiting.expired():
                waiting.reschedule(now)
        await self._session.close()

    def _first_until(self) -> float:
        timeouts = self._timeouts
        return asyncio.get_running_loop().time() + min(timeouts.first_event_s, timeouts.total_s)

    async def _exchange(self, method: str, path: str, body: Mapping[str, Any] | None, limit_s: float) -> Answer:
        until = asyncio.get_running_loop().time() + limit_s
        try:
            return await self._within(until, self._answer(method, path, body))
        except aiohttp.ClientError as exc:
            raise self._unreachable(exc) from exc

    async def _answer(self, method: str, path: str, body: Mapping[str, Any] | None) -> Answer:
        asked = self._session.request(method, self.url + path, json=body, allow_redirects=False)
        async with asked as response:
            return Answer(response.status, response.headers, await response.read())

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
            except aiohttp.ClientError as exc:
                # Who did not answer for seconds has been waited for.
                if pause_s is None or isinstance(exc, aiohttp.ConnectionTimeoutError):
                    raise self._unreachable(exc) from exc
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
        given = response.headers.get("content-type", "")
        if response.status == 200 and given.startswith(kind):
            return response
        try:
            content = await self._within(until, response.read())
        except aiohttp.ClientError:
            content = b""
        finally:
            response.close()
        if response.status == 200:
            raise EngineError(f"the engine answers with {given or 'no content type'} in place of {kind}")
        raise error_of_response(response.status, response.headers, content)

    async def _finish(self, response: aiohttp.ClientResponse) -> None:
        """Read the end of a body after its last event, for only then its connection can be used again."""
        with suppress(EngineError, aiohttp.ClientError):
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
        return EngineUnreachableError(f"nothing answers at {self.url}: {why}")


async def _next_chunk(response: aiohttp.ClientResponse) -> bytes:
    """Return the next bytes of a body. Its end comes after ``[DONE]``, so here it is a cut, however it looks."""
    try:
        chunk = await response.content.readany()
    except aiohttp.ClientError as exc:
        raise EngineError(CUT) from exc
    if not chunk:
        raise EngineError(CUT)
    return chunk


def _decoded(decoder: EventDecoder, chunk: bytes) -> list[bytes]:
    try:
        return decoder.feed(chunk)
    except ValueError as exc:
        raise EngineError(f"the engine sent {exc}") from exc
