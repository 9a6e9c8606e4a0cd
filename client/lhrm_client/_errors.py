"""The client's exceptions and the mapping from HTTP answers to them.

The tree::

    LHRMError
    |- ArgumentError          a call argument is wrong; nothing was sent (also a ValueError)
    |- ClientClosedError      the client was used after it was closed; nothing was sent (also a RuntimeError)
    |- TransportError         no complete HTTP answer arrived
    |  |- ConnectFailedError  the server was not reached
    |  `- RequestTimeoutError the server did not answer in time
    |- StatusError            the server answered with an error status
    |  |- BadRequestError     400, 422
    |  |- AuthenticationError 401
    |  |- PermissionDeniedError 403
    |  |- NotFoundError       404
    |  |- RequestTooLargeError 413
    |  |- RateLimitError      429
    |  `- ServerError         5xx
    |     `- OverloadedError  503
    |- StreamError            the answer failed after its stream had begun; never retried
    |  `- StreamInterruptedError  the stream ended, or was closed, before the answer was complete
    |     `- StreamTimeoutError   it fell silent, or the deadline came (also a RequestTimeoutError)
    |- ResponseFormatError    a 2xx answer that is not what an lhrm gateway sends
    `- ParseError             the model's text is not the JSON asked for (also a ValueError)

Every error has ``status``, ``request_id`` and ``body``, each None where there is none.
"""

from __future__ import annotations

import json

import httpx
from pydantic import JsonValue

_BODY_EXCERPT_CHARS = 200


class LHRMError(Exception):
    """Base of everything this package raises."""

    def __init__(
        self, message: str, *, status: int | None = None, request_id: str | None = None, body: JsonValue = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.request_id = request_id
        self.body = body

    @property
    def code(self) -> str | None:
        """The error object's ``code``, if the server sent one."""
        return self._error_field("code")

    @property
    def type(self) -> str | None:
        """The error object's ``type``, if the server sent one."""
        return self._error_field("type")

    @property
    def param(self) -> str | None:
        """The request field at fault, if the server named one."""
        return self._error_field("param")

    def _error_field(self, name: str) -> str | None:
        error = self.body.get("error") if isinstance(self.body, dict) else None
        value = error.get(name) if isinstance(error, dict) else None
        return None if value is None else str(value)

    def __str__(self) -> str:
        where = [f"status {self.status}"] if self.status is not None else []
        where += [f"request id {self.request_id}"] if self.request_id else []
        return f"{self.message} ({', '.join(where)})" if where else self.message


class ArgumentError(LHRMError, ValueError):
    """A call argument is wrong; nothing was sent."""


class ClientClosedError(LHRMError, RuntimeError):
    """The client was used after it was closed; nothing was sent."""


class TransportError(LHRMError):
    """No complete HTTP answer arrived."""


class ConnectFailedError(TransportError):
    """The server was not reached."""


class RequestTimeoutError(TransportError):
    """The server did not answer in time."""


class StatusError(LHRMError):
    """The server answered with an error status."""


class BadRequestError(StatusError):
    """The request is malformed or asks for something unsupported; ``param`` names the field."""


class AuthenticationError(StatusError):
    """The API key is missing or unknown."""


class PermissionDeniedError(StatusError):
    """The API key may not do this."""


class NotFoundError(StatusError):
    """No such model or path."""


class RequestTooLargeError(StatusError):
    """The request body is over the server's limit."""


class RateLimitError(StatusError):
    """Too many requests for this key."""


class ServerError(StatusError):
    """The server failed."""


class OverloadedError(ServerError):
    """The server is full, starting or draining; try again later."""


class StreamError(LHRMError):
    """The answer failed after its stream had begun; what was already yielded is all there is."""


class StreamInterruptedError(StreamError):
    """The stream ended, or was closed, before its end marker."""


class StreamTimeoutError(StreamInterruptedError, RequestTimeoutError):
    """The stream fell silent for longer than the time-out, or the call's deadline came."""


class ResponseFormatError(LHRMError):
    """A 2xx answer that is not what an lhrm gateway sends."""


class ParseError(LHRMError, ValueError):
    """The answer, or the arguments of a call, do not fit the type asked for; ``body`` is the text."""


_STATUS_ERRORS: dict[int, type[StatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    413: RequestTooLargeError,
    422: BadRequestError,
    429: RateLimitError,
    503: OverloadedError,
}


def decode_body(content: bytes) -> JsonValue:
    """Return a body as JSON where it is JSON, else as text, else None."""
    text = content.decode("utf-8", errors="replace")
    try:
        value: JsonValue = json.loads(text)
    except ValueError:
        return text or None
    return value


def error_message(body: JsonValue, fallback: str) -> str:
    """Return the human part of an error body: OpenAI object, plain string, or an excerpt of anything else."""
    error = body.get("error") if isinstance(body, dict) else body
    message = error.get("message") if isinstance(error, dict) else error
    if isinstance(message, str) and message.strip():
        return message.strip()[:_BODY_EXCERPT_CHARS]
    return fallback


def status_error(status: int, content: bytes, request_id: str | None) -> StatusError:
    """Map an error answer to its exception."""
    default = ServerError if status >= 500 else StatusError
    body = decode_body(content)
    return _STATUS_ERRORS.get(status, default)(
        error_message(body, f"the server answered {status}"), status=status, request_id=request_id, body=body
    )


def transport_error(exc: httpx.RequestError, url: str) -> TransportError:
    """Map a failure of the HTTP layer to its exception."""
    if isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout):
        return ConnectFailedError(f"could not connect to {url}: {str(exc) or type(exc).__name__}")
    if isinstance(exc, httpx.TimeoutException):
        return RequestTimeoutError(f"{url} did not answer in time ({type(exc).__name__})")
    return TransportError(f"request to {url} failed: {str(exc) or type(exc).__name__}")
