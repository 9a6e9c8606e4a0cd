"""One call of the API, its deadline, and what follows when a try of it fails."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx
from pydantic import JsonValue

from ._errors import (
    ArgumentError,
    RequestTimeoutError,
    StreamTimeoutError,
    TransportError,
    status_error,
    transport_error,
)
from ._retry import RetryRule, is_retryable

# An answer that thinks may be silent for minutes; keep-alive comments reset the clock of a stream.
DEFAULT_TIMEOUT = httpx.Timeout(600.0, connect=5.0)
# A gateway closes connections that are idle for 5 s. One closed while a request is on its way would fail a call that
# may not be tried again, so the client lets go first.
LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=4.0)
CHAT_PATH, MODELS_PATH, VERSION_PATH = "/v1/chat/completions", "/v1/models", "/version"


class Deadline:
    """A limit on a whole call, in seconds from now; None is no limit."""

    def __init__(self, limit_s: float | None = None) -> None:
        if limit_s is not None and not _is_duration(limit_s):
            raise ArgumentError(f"deadline_s={limit_s!r} is not a number of seconds above 0")
        self.limit_s = limit_s
        self._ends = math.inf if limit_s is None else time.monotonic() + limit_s

    def left_s(self) -> float:
        """Return how much is left, infinite without a limit, negative when it is over."""
        return self._ends - time.monotonic()


def _is_duration(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


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

    def timeout(self) -> httpx.Timeout:
        """Return the limits of the next try. Raises RequestTimeoutError at the deadline."""
        left_s = self._deadline.left_s()
        if left_s <= 0:
            raise RequestTimeoutError(self._too_late())
        if math.isinf(left_s):
            return self._timeout
        limits = self._timeout.as_dict().items()
        return httpx.Timeout(**{name: left_s if limit is None else min(limit, left_s) for name, limit in limits})

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
        return transport_error(exc, self._url)

    def check(self, request_id: str | None) -> None:
        """Raise StreamTimeoutError when the deadline is over and the answer is not."""
        if self._deadline.left_s() <= 0:
            raise StreamTimeoutError(self._too_late(), status=200, request_id=request_id)

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
        self.headers = {name: checked_header(f"headers[{name!r}]", value) for name, value in (headers or {}).items()}
        if api_key:
            self.headers["Authorization"] = f"Bearer {checked_header('api_key', api_key, secret=True)}"
        self.timeout = _timeout(timeout)
        self.model = model
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
    if not isinstance(value, str) or not (value.isascii() and value.isprintable()):
        shown = "" if secret else f"={value!r}"
        raise ArgumentError(f"{name}{shown} is not a text that an HTTP header can carry")
    return value


def _check_url(base_url: str) -> None:
    try:
        url = httpx.URL(base_url)
    except (httpx.InvalidURL, TypeError) as exc:
        raise ArgumentError(f"base_url={base_url!r} is not a URL: {exc}") from exc
    if url.scheme not in ("http", "https") or not url.host:
        raise ArgumentError(f"base_url={base_url!r} does not start with http://HOST or https://HOST")


def _timeout(timeout: float | httpx.Timeout) -> httpx.Timeout:
    if isinstance(timeout, httpx.Timeout):
        return timeout
    if not _is_duration(timeout):
        raise ArgumentError(f"timeout={timeout!r} is neither a number of seconds above 0 nor an httpx.Timeout")
    return httpx.Timeout(timeout)
