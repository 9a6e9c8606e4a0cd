"""Make one request over HTTP and time what comes; the client side of the load test."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
from pydantic import JsonValue

from .arms import Arm
from .errors import LoadTestError
from .plan import Job
from .rows import Reply
from .wire import ReplyError, StreamReader, build_body, status_message

CHAT, MODELS, VERSION = "/v1/chat/completions", "/v1/models", "/version"
CONNECT_S, PROBE_S = 5.0, 30.0
# Shorter than servers keep an idle connection (uvicorn: 5 s): one that is closed while it is taken again is an error.
KEEPALIVE_S = 2.0
LINE_BYTES = 1 << 20


@dataclass(frozen=True)
class Sampling:
    """What holds for every request; None leaves it to the endpoint. `timeout_s` without a byte fails a request."""

    max_tokens: int | None = None
    temperature: float | None = None
    timeout_s: float = 600.0


@dataclass(frozen=True)
class Answered:
    """One request's times in milliseconds of `time.perf_counter`, with its reply or its error.

    `unreachable` says that the error was to get no connection.
    """

    sent_ms: float
    first_token_ms: float | None
    first_answer_ms: float | None
    end_ms: float
    request_id: str | None
    reply: Reply | None
    error: str | None
    unreachable: bool = False


def now_ms() -> float:
    """Return the clock of all times, in milliseconds from an arbitrary start."""
    return time.perf_counter() * 1000


class Driver:
    """A connection pool without a limit, and no retries: a retry would hide an error and its latency."""

    def __init__(self, arms: Mapping[str, Arm], sampling: Sampling) -> None:
        self._arms = arms
        self._sampling = sampling
        self._session: aiohttp.ClientSession | None = None
        self.models = {name: arm.model for name, arm in arms.items()}

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=self._sampling.timeout_s)
        # A read buffer that holds the longest line: an event with a whole usage object is one line.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S),
            timeout=timeout,
            read_bufsize=LINE_BYTES,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.close()

    @property
    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the driver is used outside `async with`")
        return self._session

    async def ask(self, job: Job) -> Answered:
        """Make the request of a job; what goes wrong is in the result."""
        arm, sampling = self._arms[job.arm], self._sampling
        reader = StreamReader(arm.answer_after)
        model = self.models[job.arm]
        body = build_body(arm, model, job.prompt, job.seed, sampling.max_tokens, sampling.temperature)
        request_id, reply, error, unreachable = None, None, None, False
        sent_ms = now_ms()
        try:
            async with self._http.post(arm.url + CHAT, json=body, headers=arm.headers()) as response:
                request_id = response.headers.get("X-Request-Id")
                if response.status != 200:
                    raise ReplyError(status_message(response.status, await response.read()))
                async for line in response.content:
                    reader.feed(line, now_ms())
                reply = reader.reply()
        except ReplyError as exc:
            error = str(exc)
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            error = f"{type(exc).__name__}: {exc}".rstrip(": ")
            unreachable = isinstance(exc, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError)
        first_token, first_answer = reader.first_token, reader.first_answer
        return Answered(sent_ms, first_token, first_answer, now_ms(), request_id, reply, error, unreachable)

    async def settle(self) -> dict[str, dict[str, JsonValue]]:
        """Find the model of every arm that names none, and return what each endpoint says of itself.

        Raises LoadTestError for an endpoint that cannot be reached or lists no model.
        """
        told: dict[str, dict[str, JsonValue]] = {}
        for name, arm in self._arms.items():
            if not self.models[name]:
                self.models[name] = await self._first_model(arm)
            if arm.url not in told:
                told[arm.url] = await self._version(arm)
        return told

    async def _first_model(self, arm: Arm) -> str:
        body = await self._get(arm, MODELS)
        try:
            return str(body["data"][0]["id"])
        except (KeyError, IndexError, TypeError) as exc:
            raise LoadTestError(f"arm {arm.name!r}: {arm.url} lists no model; name one") from exc

    async def _version(self, arm: Arm) -> dict[str, JsonValue]:
        try:
            body = await self._get(arm, VERSION)
        except LoadTestError:
            return {}  # most servers have no such route
        return body if isinstance(body, dict) else {}

    async def _get(self, arm: Arm, path: str) -> Any:
        timeout = aiohttp.ClientTimeout(total=PROBE_S, sock_connect=CONNECT_S)
        try:
            async with self._http.get(arm.url + path, headers=arm.headers(), timeout=timeout) as response:
                if response.status != 200:
                    message = status_message(response.status, await response.read())
                    raise LoadTestError(f"arm {arm.name!r}: {arm.url}{path}: {message}")
                return await response.json(content_type=None)
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            why = f"{type(exc).__name__}: {exc}".rstrip(": ")
            raise LoadTestError(f"arm {arm.name!r}: could not reach {arm.url}{path}: {why}") from exc
