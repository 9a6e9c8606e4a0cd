"""One call of the API, its deadline, and what follows when a try of it fails."""

from __future__ import annotations

import math
import random
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import httpx
from pydantic import JsonValue

from ._errors import (
    ArgumentError,
    RequestTimeoutError,
    TransportError,
    status_error,
    transport_error,
)
from ._retry import RetryRule, is_retryable

CONNECT_LIMIT_S = 5.0
# An answer that thinks may be silent for minutes; keep-alive comments reset the clock of a stream.
# Who waits for a connection of the pool waits for our other calls and not for a silent server.
DEFAULT_TIMEOUT = httpx.Timeout(600.0, connect=CONNECT_LIMIT_S, pool=None)
# A gateway closes connections that are idle for 5 s. One closed while a request is on its way would fail a call that
# may not be tried again, so the client lets go first.
LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=4.0)
# A step that begins at the deadline still needs a limit that is one.
_LEAST_LIMIT_S = 0.001
# What RFC 9110 calls a token.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
CHAT_PATH, MODELS_PATH, VERSION_PATH = "/v1/chat/completions", "/v1/models", "/version"


class Deadline:
    """A limit on a whole call, in seconds from now; None is no limit."""

    def __init__(self, limit_s: float | None = None) -> None:
        if limit_s is not None and not _is_duration(limit_s):
            raise ArgumentError(f"deadline_s={limit_s!r} is not a number of seconds above 0 that a clock can count")
        self.limit_s = limit_s
        self._ends = math.inf if limit_s is None else time.monotonic() + limit_s

    def left_s(self) -> float:
        """Return how much is left, infinite without a limit, negative when it is over."""
        return self._ends - time.monotonic()

    def check(self) -> None:
        """Raise httpx.ReadTimeout when it is over."""
        if self.left_s() <= 0:
            raise self.error()

    def error(self) -> httpx.ReadTimeout:
        """Return what says that it is over."""
        return httpx.ReadTimeout(f"deadline_s={self.limit_s} is over")


class Limits(Mapping[str, float | None]):
    """The limits of the steps of one try: those of `timeout`, but never more than is left of the deadline.

    httpcore looks a limit up when its step begins, so each gets what the steps before it have left.
    """

    def __init__(self, timeout: httpx.Timeout, deadline: Deadline) -> None:
        self._limits = timeout.as_dict()
        self._deadline = deadline

    def __getitem__(self, step: str) -> float | None:
        limit_s = self._limits[step]
        left_s = max(self._deadline.left_s(), _LEAST_LIMIT_S)
        if limit_s is None:
            return None if math.isinf(left_s) else left_s
        return min(limit_s, left_s)

    def __iter__(self) -> Iterator[str]:
        return iter(self._limits)

    def __len__(self) -> int:
        return len(self._limits)


def _is_duration(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= threading.TIMEOUT_MAX


@dataclass(frozen=True)
class Call:
    """One request as every try of it is sent."""

    method: str
    path: str
    body: dict[str, JsonValue] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    deadline: Deadline = field(default_factory=Deadline)


class Tries:
    """Follows the tries of one call: how long each may take, and after a failure the wait or the final error."""

    def __init__(self, call: Call, rule: RetryRule, timeout: httpx.Timeout, url: str, rng: random.Random) -> None:
        self._deadline = call.deadline
        self._rule = rule
        self._timeout = timeout
        self._url = url
        self._rng = rng
        self._failed = 0

    def limits(self) -> Limits:
        """Return the limits of the next try. Raises RequestTimeoutError at the deadline."""
        if self._deadline.left_s() <= 0:
            raise RequestTimeoutError(self._too_late())
        return Limits(self._timeout, self._deadline)

    def after_failure(self, exc: httpx.RequestError) -> float:
        """Return the seconds to wait before the next try. Raises TransportError when this one was the last."""
        # A connection that was never made cannot have started a generation; any other failure may have.
        never_sent = isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout)
        wait_s = self._wait_s({}) if never_sent else None
        if wait_s is None:
            raise self.error(exc) from exc
        return wait_s

    def after_status(self, status: int, headers: Mapping[str, str], content: bytes) -> float:
        """Return the seconds to wait before the next try. Raises StatusError when this one was the last."""
        wait_s = self._wait_s(headers) if is_retryable(status) else None
        if wait_s is None:
            raise status_error(status, content, headers.get("x-request-id"))
        return wait_s

    def error(self, exc: httpx.RequestError) -> TransportError:
        """Return the error for a failure of the HTTP layer that ends the call."""
        if isinstance(exc, httpx.TimeoutException) and self._deadline.left_s() <= 0:
            return RequestTimeoutError(self._too_late())
        return transport_error(exc, self._url)

    def _wait_s(self, headers: Mapping[str, str]) -> float | None:
        wait_s = self._rule.delay_s(self._failed, headers, self._rng)
        self._failed += 1
        return None if wait_s is None or wait_s >= self._deadline.left_s() else wait_s

    def _too_late(self) -> str:
        return f"{self._url} did not answer within deadline_s={self._deadline.limit_s}"


class Core:
    """What both clients hold besides their HTTP connection. Raises ArgumentError on a setting that cannot work."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        model: str | None,
        timeout: float | httpx.Timeout,
        max_retries: int,
        headers: Mapping[str, str] | None,
    ) -> None:
        _check_url(base_url)
        if isinstance(max_retries, bool) or not isinstance(max_retries, int) or max_retries < 0:
            raise ArgumentError(f"max_retries={max_retries!r} is not a number from 0")
        self.base_url = base_url.rstrip("/").removesuffix("/v1")
        self.headers = _checked_headers({} if headers is None else headers)
        if api_key:
            self.headers["Authorization"] = f"Bearer {checked_header('api_key', api_key, secret=True)}"
        self.timeout = _timeout(timeout)
        self.model = _checked_model(model)
        self._rule = RetryRule(max_retries)
        self._rng = random.Random()

    def tries(self, call: Call) -> Tries:
        """Begin to follow the tries of a call."""
        return Tries(call, self._rule, self.timeout, self.base_url, self._rng)


def request_id_of(response: httpx.Response) -> str | None:
    """Return the id the server gave the request."""
    value: str | None = response.headers.get("x-request-id")
    return value


def checked_header(name: str, value: object, *, secret: bool = False) -> str:
    """Return a header's value. Raises ArgumentError where no header can carry it; a secret is not shown."""
    if not isinstance(value, str) or not (value.isascii() and value.isprintable()) or value != value.strip():
        shown = "" if secret else f"={value!r}"
        raise ArgumentError(f"{name}{shown} is not a text that an HTTP header can carry")
    return value


def _checked_headers(headers: object) -> dict[str, str]:
    if not isinstance(headers, Mapping):
        # Not shown: there may be a key among them.
        raise ArgumentError(f"headers is a {type(headers).__name__}, not a mapping of names to values")
    for name in headers:
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise ArgumentError(f"headers: {name!r} is not a name that an HTTP header can have")
    return {name: checked_header(f"headers[{name!r}]", value) for name, value in headers.items()}


def _checked_model(model: object) -> str | None:
    if model is not None and not isinstance(model, str):
        raise ArgumentError(f"model={model!r} is not the name of a model")
    return model


def _check_url(base_url: object) -> None:
    if not isinstance(base_url, str):
        raise ArgumentError(f"base_url={base_url!r} is not a text")
    try:
        url = httpx.URL(base_url)
        # The name lookup would fail on a name it cannot spell, and not with an error of httpx.
        url.raw_host.decode("ascii").encode("idna")
    except (httpx.InvalidURL, UnicodeError) as exc:
        raise ArgumentError(f"base_url={base_url!r} is not a URL: {exc}") from exc
    if url.scheme not in ("http", "https") or not url.host:
        raise ArgumentError(f"base_url={base_url!r} does not start with http://HOST or https://HOST")
    if url.port is not None and not 0 < url.port < 65536:
        raise ArgumentError(f"base_url={base_url!r}: {url.port} is not a port")


def _timeout(timeout: float | httpx.Timeout) -> httpx.Timeout:
    if isinstance(timeout, httpx.Timeout):
        return timeout
    if not _is_duration(timeout):
        raise ArgumentError(
            f"timeout={timeout!r} is neither a number of seconds above 0 that a clock can count nor an httpx.Timeout"
        )
    return httpx.Timeout(timeout, connect=min(timeout, CONNECT_LIMIT_S), pool=None)
