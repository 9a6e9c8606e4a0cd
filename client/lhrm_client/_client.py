"""LHRM and AsyncLHRM: thin shells that send what the pure modules build and yield what they read."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import aclosing, asynccontextmanager, closing, contextmanager
from types import TracebackType
from typing import Self, Unpack

import httpx
from pydantic import JsonValue

from ._errors import ArgumentError, ResponseFormatError, status_error, transport_error
from ._request import build_body
from ._response import json_object, read_chat, read_models
from ._retry import RetryRule, is_retryable
from ._stream import ChatStreamReader
from ._types import ChatEvent, ChatOptions, ChatResult, Messages, ModelInfo

# An answer that thinks may be silent for minutes; keep-alive comments reset the clock of a stream.
DEFAULT_TIMEOUT = httpx.Timeout(600.0, connect=5.0)
_CHAT, _MODELS, _VERSION = "/v1/chat/completions", "/v1/models", "/version"


class _Core:
    """What both clients hold besides their HTTP connection."""

    def __init__(self, base_url: str, api_key: str | None, model: str | None, max_retries: int) -> None:
        _check_url(base_url)
        if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
            raise ArgumentError("api_key holds characters that no HTTP header can carry")
        if max_retries < 0:
            raise ArgumentError(f"max_retries={max_retries} is negative")
        self.base_url = base_url.rstrip("/").removesuffix("/v1")
        self.headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.model = model
        self.retry = RetryRule(max_retries)
        self.rng = random.Random()

    def wait_s(self, attempt: int, failure: httpx.Response | httpx.RequestError) -> float | None:
        """Return how long to wait before trying again, or None when the failure is final."""
        if isinstance(failure, httpx.Response):
            return self.retry.delay_s(attempt, failure.headers, self.rng) if is_retryable(failure.status_code) else None
        # A connection that was never made cannot have started a generation; any other failure may have.
        never_sent = isinstance(failure, httpx.ConnectError | httpx.ConnectTimeout)
        return self.retry.delay_s(attempt, {}, self.rng) if never_sent else None


def _check_url(base_url: str) -> None:
    try:
        url = httpx.URL(base_url)
    except httpx.InvalidURL as exc:
        raise ArgumentError(f"base_url={base_url!r} is not a URL: {exc}") from exc
    if url.scheme not in ("http", "https") or not url.host:
        raise ArgumentError(f"base_url={base_url!r} does not start with http://HOST or https://HOST")


def _request_id(response: httpx.Response) -> str | None:
    value: str | None = response.headers.get("x-request-id")
    return value


def _first_model(models: list[ModelInfo]) -> str:
    if not models:
        raise ResponseFormatError("the server lists no model; pass model=", status=200)
    return models[0].id


class LHRM:
    """A gateway, synchronously.

    Example::

        with LHRM("http://127.0.0.1:8000") as lhrm:
            result = lhrm.chat("What is 48371 + 92615?")
            print(result.mode, result.answer, result.savings)

    `model` None uses the first model the server lists. `transport` replaces the network, for tests.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        model: str | None = None,
        timeout: float | httpx.Timeout = DEFAULT_TIMEOUT,
        max_retries: int = 2,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._core = _Core(base_url, api_key, model, max_retries)
        self._http = httpx.Client(
            base_url=self._core.base_url, headers=self._core.headers, timeout=timeout, transport=transport
        )

    def chat(self, messages: Messages, **options: Unpack[ChatOptions]) -> ChatResult:
        """Return the whole answer. Raises LHRMError."""
        body = build_body(messages, stream=False, **options)
        with self._send("POST", _CHAT, self._with_model(body)) as response:
            return read_chat(self._read(response), _request_id(response))

    def chat_stream(self, messages: Messages, **options: Unpack[ChatOptions]) -> Generator[ChatEvent, None, None]:
        """Yield the answer's events, Finished last. Close the generator to abort the generation."""
        return self._stream(build_body(messages, stream=True, **options))

    def models(self) -> list[ModelInfo]:
        """Return the models the server offers, each with its capability block."""
        with self._send("GET", _MODELS, None) as response:
            return read_models(self._read(response), _request_id(response))

    def version(self) -> dict[str, JsonValue]:
        """Return what the server says about itself."""
        with self._send("GET", _VERSION, None) as response:
            return json_object(self._read(response), _request_id(response))

    def _stream(self, body: dict[str, JsonValue]) -> Generator[ChatEvent, None, None]:
        with self._send("POST", _CHAT, self._with_model(body)) as response:
            reader = ChatStreamReader(_request_id(response))
            try:
                # Read past the end marker: only a response read to its end leaves the connection usable.
                for chunk in response.iter_bytes():
                    yield from reader.feed(chunk)
            except httpx.RequestError as exc:
                reader.finish(exc)
            reader.finish()

    def _with_model(self, body: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if "model" in body:
            return body
        self._core.model = self._core.model or _first_model(self.models())
        return {"model": self._core.model, **body}

    @contextmanager
    def _send(self, method: str, path: str, body: dict[str, JsonValue] | None) -> Iterator[httpx.Response]:
        """Open a 2xx response, its body unread; failures before it are retried where that is safe."""
        attempt = 0
        while True:
            try:
                response = self._http.send(self._http.build_request(method, path, json=body), stream=True)
            except httpx.RequestError as exc:
                wait_s = self._core.wait_s(attempt, exc)
                if wait_s is None:
                    raise transport_error(exc, self._core.base_url) from exc
            else:
                with closing(response):
                    if response.is_success:
                        yield response
                        return
                    content = self._read(response)
                wait_s = self._core.wait_s(attempt, response)
                if wait_s is None:
                    raise status_error(response.status_code, content, _request_id(response))
            time.sleep(wait_s)
            attempt += 1

    def _read(self, response: httpx.Response) -> bytes:
        try:
            return response.read()
        except httpx.RequestError as exc:
            raise transport_error(exc, self._core.base_url) from exc

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncLHRM:
    """A gateway, asynchronously; the same calls as LHRM, awaited."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        model: str | None = None,
        timeout: float | httpx.Timeout = DEFAULT_TIMEOUT,
        max_retries: int = 2,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._core = _Core(base_url, api_key, model, max_retries)
        self._http = httpx.AsyncClient(
            base_url=self._core.base_url, headers=self._core.headers, timeout=timeout, transport=transport
        )

    async def chat(self, messages: Messages, **options: Unpack[ChatOptions]) -> ChatResult:
        """Return the whole answer. Raises LHRMError."""
        body = build_body(messages, stream=False, **options)
        async with self._send("POST", _CHAT, await self._with_model(body)) as response:
            return read_chat(await self._read(response), _request_id(response))

    def chat_stream(self, messages: Messages, **options: Unpack[ChatOptions]) -> AsyncGenerator[ChatEvent, None]:
        """Yield the answer's events, Finished last. Close the generator to abort the generation."""
        return self._stream(build_body(messages, stream=True, **options))

    async def models(self) -> list[ModelInfo]:
        """Return the models the server offers, each with its capability block."""
        async with self._send("GET", _MODELS, None) as response:
            return read_models(await self._read(response), _request_id(response))

    async def version(self) -> dict[str, JsonValue]:
        """Return what the server says about itself."""
        async with self._send("GET", _VERSION, None) as response:
            return json_object(await self._read(response), _request_id(response))

    async def _stream(self, body: dict[str, JsonValue]) -> AsyncGenerator[ChatEvent, None]:
        async with self._send("POST", _CHAT, await self._with_model(body)) as response:
            reader = ChatStreamReader(_request_id(response))
            try:
                # Read past the end marker: only a response read to its end leaves the connection usable.
                async for chunk in response.aiter_bytes():
                    for event in reader.feed(chunk):
                        yield event
            except httpx.RequestError as exc:
                reader.finish(exc)
            reader.finish()

    async def _with_model(self, body: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if "model" in body:
            return body
        self._core.model = self._core.model or _first_model(await self.models())
        return {"model": self._core.model, **body}

    @asynccontextmanager
    async def _send(self, method: str, path: str, body: dict[str, JsonValue] | None) -> AsyncIterator[httpx.Response]:
        """Open a 2xx response, its body unread; failures before it are retried where that is safe."""
        attempt = 0
        while True:
            try:
                response = await self._http.send(self._http.build_request(method, path, json=body), stream=True)
            except httpx.RequestError as exc:
                wait_s = self._core.wait_s(attempt, exc)
                if wait_s is None:
                    raise transport_error(exc, self._core.base_url) from exc
            else:
                async with aclosing(response):
                    if response.is_success:
                        yield response
                        return
                    content = await self._read(response)
                wait_s = self._core.wait_s(attempt, response)
                if wait_s is None:
                    raise status_error(response.status_code, content, _request_id(response))
            await asyncio.sleep(wait_s)
            attempt += 1

    async def _read(self, response: httpx.Response) -> bytes:
        try:
            return await response.aread()
        except httpx.RequestError as exc:
            raise transport_error(exc, self._core.base_url) from exc

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
