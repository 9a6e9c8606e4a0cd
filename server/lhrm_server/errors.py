"""The gateway's errors and their one mapping to an HTTP status and the OpenAI error body.

GatewayError
|- InvalidRequestError             400  the request cannot be honoured; `param` names the field
|  |- UnsupportedParameterError    400
|  |- ContradictionError           400
|  `- ContextLengthError           400
|- ForbiddenError                  403
|  |- ModeNotAllowedError          403  the operator's policy does not let requests ask for this mode
|  `- OperatorRightsError          403  a header that only operators may send
|- ModelNotFoundError              404
|- BodyTooLargeError               413
|- OverloadedError                 503
|- NotReadyError                   503
|- StoppedError                    503  the server's grace ended first
`- EngineFailureError              500; 503 when the engine is away or full, 504 when it takes too long
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from .engine import (
    EngineDeadError,
    EngineError,
    EngineOverloadedError,
    EngineTimeoutError,
    EngineUnreachableError,
)

ErrorBody = dict[str, dict[str, str | None]]

INVALID = "invalid_request_error"
SERVER = "server_error"
UNEXPECTED = "The server met an unexpected error."


class GatewayError(Exception):
    """An error that the client sees: `message`, `param` and `code` go into the OpenAI error body."""

    status = 500
    kind = SERVER
    code: str | None = None

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or type(self).code

    @property
    def headers(self) -> dict[str, str]:
        """Headers that go with the status."""
        return {"Retry-After": "1"} if self.status == 503 else {}

    def body(self) -> ErrorBody:
        """Return the OpenAI error body."""
        return error_body(self.message, self.kind, self.param, self.code)


class InvalidRequestError(GatewayError):
    """The request is malformed or asks for something impossible."""

    status = 400
    kind = INVALID
    code = "invalid_value"


class UnsupportedParameterError(InvalidRequestError):
    """A field that this server does not know, or a value that it cannot honour."""

    code = "unsupported_parameter"

    def __init__(self, param: str, why: str) -> None:
        super().__init__(f"{param}: {why}", param=param)


class ContradictionError(InvalidRequestError):
    """Two fields that ask for different things; `what` names the thing: mode, effort, budget, visibility."""

    def __init__(self, what: str, fields: Sequence[str]) -> None:
        both = ", ".join(fields)
        message = f"These fields contradict each other about {what}: {both}."
        super().__init__(message, param=both, code=f"contradictory_{what}")


class ContextLengthError(InvalidRequestError):
    """The prompt, or the prompt and the requested completion, do not fit into the context."""

    code = "context_length_exceeded"


class ForbiddenError(GatewayError):
    """The request is well formed, but its sender may not make it."""

    status = 403
    kind = "permission_error"


class ModeNotAllowedError(ForbiddenError):
    """A request for a mode that the operator's policy does not leave to requests; `param` is what asks for it."""

    code = "mode_not_allowed"

    def __init__(self, param: str, mode: str, allowed: Iterable[str]) -> None:
        super().__init__(
            f"{param} asks for {mode}; this server lets requests ask for {', '.join(allowed)} only.", param=param
        )


class OperatorRightsError(ForbiddenError):
    """A header that needs operator rights, from somebody without them."""

    code = "operator_rights_needed"

    def __init__(self, param: str) -> None:
        super().__init__(f"{param} may only be sent with operator rights.", param=param)


class ModelNotFoundError(GatewayError):
    """A model name that is not served here."""

    status = 404
    kind = INVALID
    code = "model_not_found"

    def __init__(self, model: str, known: Iterable[str]) -> None:
        super().__init__(f"The model {model[:100]!r} is not served here; known: {', '.join(known)}.", param="model")


class BodyTooLargeError(GatewayError):
    """A request body over the configured size."""

    status = 413
    kind = INVALID
    code = "body_too_large"


class OverloadedError(GatewayError):
    """As many requests as the gateway admits are in flight."""

    status = 503
    code = "overloaded"


class NotReadyError(GatewayError):
    """The gateway is starting or draining."""

    status = 503
    code = "not_ready"


class StoppedError(GatewayError):
    """The server's grace for requests in flight ended before the answer was complete."""

    status = 503
    code = "shutting_down"

    def __init__(self) -> None:
        super().__init__("The server stopped before the answer was complete.")


class EngineFailureError(GatewayError):
    """The engine failed; its own message stays in the server's log."""

    def __init__(self, cause: EngineError) -> None:
        self.status, code, message = _told(cause)
        self._retry_after_s = getattr(cause, "retry_after_s", None)
        super().__init__(message, code=code)

    @property
    def headers(self) -> dict[str, str]:
        """Headers that go with the status; the engine's own advice on when to come back wins."""
        if self._retry_after_s is None:
            return super().headers
        return {"Retry-After": str(math.ceil(self._retry_after_s))}


def _told(cause: EngineError) -> tuple[int, str, str]:
    """Return status, code and message of a failure of the engine."""
    if isinstance(cause, EngineDeadError):
        return 503, "engine_unavailable", "The engine is not running."
    if isinstance(cause, EngineUnreachableError):
        return 503, "engine_unavailable", "The engine cannot be reached."
    if isinstance(cause, EngineOverloadedError):
        return 503, "overloaded", "The engine has no room for this request now."
    if isinstance(cause, EngineTimeoutError):
        return 504, "engine_timeout", "The engine took too long."
    return 500, "engine_error", "The engine failed while it served this request."


def error_body(message: str, kind: str, param: str | None = None, code: str | None = None) -> ErrorBody:
    """Return the error body that OpenAI clients read."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def unexpected_error() -> ErrorBody:
    """Return the error body of what went wrong in the server itself; nothing of the cause is told."""
    return error_body(UNEXPECTED, SERVER, code="internal_error")


def http_error_body(status: int, method: str, path: str) -> ErrorBody:
    """Return the error body of a request that no route takes."""
    if status == 404:
        return error_body(f"Unknown request URL: {method} {path}.", INVALID, code="unknown_url")
    if status == 405:
        return error_body(f"{path} does not take {method}.", INVALID, code="method_not_allowed")
    return error_body(f"The request failed with status {status}.", INVALID if status < 500 else SERVER)


def validation_error(errors: Sequence[Mapping[str, object]]) -> InvalidRequestError:
    """Return the 400 for a request that the framework itself could not read."""
    first = errors[0] if errors else {}
    place = first.get("loc")
    param = ".".join(str(part) for part in place) if isinstance(place, tuple) else None
    return InvalidRequestError(f"{param}: {first.get('msg', 'malformed request')}", param=param)
