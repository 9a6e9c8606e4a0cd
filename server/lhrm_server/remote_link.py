"""The HTTP side of a remote engine: one pool of connections, its time-outs, retries and errors."""

from __future__ import annotations

import asyncio
import json
import random
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from .engine import EngineDeadError, EngineError, EngineTimeoutError, EngineUnreachableError
from .event_stream import EventDecoder
from .remote_reply import DONE, error_of_response

COMPLETIONS = "/v1/completions"
RETRY_PAUSES_S = (0.1, 0.4)
# Shorter than the 5 s after which vLLM's server closes an idle connection: a call must not meet the closing.
KEEPALIVE_S = 2.0
TAIL_S = 1.0
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


class RemoteLink:
    """Speaks HTTP with one base URL. Every error it raises is an EngineError."""

    def __init__(self, place: Place, timeouts: Timeouts, idle_connections: int) -> None:
        self.url = place.url
        self._timeouts = timeouts
        self._closed = False
        self._waiting: set[asyncio.Timeout] = set()
        headers = {"Accept-Encoding": "identity", "User-Agent": "lhrm-serve"}
        if place.api_key is not None:
            headers["Authorization"] = f"Bearer {place.api_key}"
        # No limit on connections: the gateway's own admission is the one queue. Neither proxies nor .netrc of the
        # environment have a say in a call between two servers; the context reads SSL_CERT_FILE by itself.
        self._client = httpx.AsyncClient(
            base_url=place.url,
            headers=headers,
            timeout=httpx.Timeout(None, connect=timeouts.connect_s),
            limits=httpx.Limits(max_keepalive_connections=idle_connections, keepalive_expiry=KEEPALIVE_S),
            trust_env=False,
            verify=ssl.create_default_context() if place.url.startswith("https:") else False,
        )

    async def status(self, path: str) -> int:
        """Return the status of a GET, within `health_s`."""
        return (await self._exchange("GET", path, None, self._timeouts.health_s)).status_code

    async def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the JSON object that a call of the start answers with."""
        response = await self._exchange(method, path, body, self._timeouts.control_s)
        if response.status_code != 200:
            raise error_of_response(response.status_code, response.headers, response.content)
        try:
            value = json.loads(response.content)
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
        until = min(deadline, loop.time() + self._timeouts.first_event_s)
        async with self._stream(body, headers, until) as response:
            decoder = EventDecoder()
            chunks = response.aiter_raw()
            while True:
                for data in _decoded(decoder, await self._within(until, _next_chunk(chunks))):
                    if data == DONE:
                        await self._finish(chunks)
                        return
                    yield data
                    until = min(deadline, loop.time() + self._timeouts.idle_s)

    async def close(self) -> None:
        """Fail what waits now with EngineDeadError and close every connection; idempotent."""
        self._closed = True
        now = asyncio.get_running_loop().time()
        for waiting in self._waiting:
            if not waiting.expired():
                waiting.reschedule(now)
        await self._client.aclose()

    async def _exchange(self, method: str, path: str, body: Mapping[str, Any] | None, limit_s: float) -> httpx.Response:
        until = asyncio.get_running_loop().time() + limit_s
        try:
            return await self._within(until, self._client.request(method, path, json=body))
        except httpx.HTTPError as exc:
            raise self._unreachable(exc) from exc

    @asynccontextmanager
    async def _stream(
        self, body: Mapping[str, Any], headers: Mapping[str, str], until: float
    ) -> AsyncIterator[httpx.Response]:
        response = await self._opened(body, headers, until)
        try:
            yield response
        finally:
            await response.aclose()

    async def _opened(self, body: Mapping[str, Any], headers: Mapping[str, str], until: float) -> httpx.Response:
        """Return the open response; a call that met no server or no room is repeated, for nothing was begun."""
        for pause_s in (*RETRY_PAUSES_S, None):
            try:
                response = await self._send(body, headers, until)
            except httpx.TransportError as exc:
                # Who did not answer for seconds has been waited for.
                if pause_s is None or isinstance(exc, httpx.ConnectTimeout):
                    raise self._unreachable(exc) from exc
            else:
                if pause_s is None or response.status_code != 503 or "retry-after" in response.headers:
                    return await self._accepted(response, until)
                await response.aclose()
            await self._within(until, asyncio.sleep(pause_s * random.uniform(0.5, 1.5)))
        raise AssertionError("the last attempt returns or raises")

    async def _send(self, body: Mapping[str, Any], headers: Mapping[str, str], until: float) -> httpx.Response:
        request = self._client.build_request("POST", COMPLETIONS, json=body, headers=dict(headers))
        return await self._within(until, self._client.send(request, stream=True))

    async def _accepted(self, response: httpx.Response, until: float) -> httpx.Response:
        kind = response.headers.get("content-type", "")
        if response.status_code == 200 and kind.startswith("text/event-stream"):
            return response
        try:
            content = await self._within(until, response.aread())
        except httpx.TransportError:
            content = b""
        finally:
            await response.aclose()
        if response.status_code == 200:
            raise EngineError(f"the engine answers with {kind or 'no content type'} in place of an event stream")
        raise error_of_response(response.status_code, response.headers, content)

    async def _finish(self, chunks: AsyncIterator[bytes]) -> None:
        """Read the end of a body after its last event, for only then its connection can be used again."""
        with suppress(EngineError, httpx.TransportError):
            await self._within(asyncio.get_running_loop().time() + TAIL_S, anext(chunks, None))

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
        except TimeoutError as exc:
            if self._closed:
                raise EngineDeadError("the link to the remote engine was closed") from exc
            raise EngineTimeoutError(f"the engine at {self.url} did not answer in time") from exc

    def _unreachable(self, exc: httpx.HTTPError) -> EngineUnreachableError:
        why = " ".join(str(exc).split()) or type(exc).__name__
        return EngineUnreachableError(f"nothing answers at {self.url}: {why}")


async def _next_chunk(chunks: AsyncIterator[bytes]) -> bytes:
    """Return the next bytes of a body. Its end comes after ``[DONE]``, so here it is a cut, however it looks."""
    try:
        return await anext(chunks)
    except (StopAsyncIteration, httpx.TransportError) as exc:
        raise EngineError("the engine closed the stream before the end of the answer") from exc


def _decoded(decoder: EventDecoder, chunk: bytes) -> list[bytes]:
    try:
        return decoder.feed(chunk)
    except ValueError as exc:
        raise EngineError(f"the engine sent {exc}") from exc
