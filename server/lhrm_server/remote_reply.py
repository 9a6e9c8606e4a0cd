"""From the bytes that ``vllm serve`` answers to TokenDeltas, or to the EngineError that they mean."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from .engine import (
    EngineError,
    EngineOverloadedError,
    EngineTimeoutError,
    EngineUnreachableError,
    RequestRefusedError,
    Sampling,
    StopReason,
    TokenDelta,
)

DONE = b"[DONE]"
LONGEST_MESSAGE = 300
REASONS = {"stop": StopReason.STOP, "length": StopReason.LENGTH, "abort": StopReason.ABORT}
REFUSALS = (400, 413, 422)
TOKEN_ID = "token_id:"
# vLLM writes this for minus infinity, which JSON cannot say.
LEAST_LOGPROB = -9999.0


def delta_of(data: bytes, sampling: Sampling) -> TokenDelta | None:
    """Return the delta that one event carries, None where it carries no tokens. Raises EngineError.

    An ``error`` event becomes the error of its code.
    """
    try:
        event = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise EngineError("the engine sent an event that is not JSON") from exc
    if not isinstance(event, dict):
        raise EngineError("the engine sent an event that is not an object")
    if "error" in event:
        raise error_of(_code(event["error"]), event["error"])
    try:
        return _delta(event, sampling)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as exc:
        # The exception's own text may hold a piece of the answer.
        raise EngineError(f"the engine sent an event of an unknown shape ({type(exc).__name__})") from exc


def error_of_response(status: int, headers: Mapping[str, str], body: bytes) -> EngineError:
    """Return the error that a response without a stream means."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    # Without its key, vLLM answers {"error": "Unauthorized"}: a text, not an object.
    error = value["error"] if isinstance(value, dict) and "error" in value else value
    return error_of(status, error, _seconds(headers.get("retry-after")))


def error_of(code: int, error: object, retry_after_s: float | None = None) -> EngineError:
    """Return the error of an HTTP status, or of the same code inside an event; `error` is OpenAI's error object."""
    told = f"{code}: {brief(error)}" if brief(error) else str(code)
    if code in REFUSALS:
        return RequestRefusedError(brief(error) or f"the engine refused the request ({code})")
    if code in (429, 503):
        return EngineOverloadedError(f"the engine has no room now ({told})", retry_after_s)
    if code in (401, 403):
        return EngineError(f"the engine refuses the API key ({told})")
    if code == 404:
        return EngineError(f"the engine does not know the model or the route ({told})")
    if code == 502:
        return EngineUnreachableError(f"nothing answers behind the engine's URL ({told})")
    if code in (408, 504):
        return EngineTimeoutError(f"the engine took too long ({told})")
    return EngineError(f"the engine failed ({told})")


def brief(error: object) -> str:
    """Return the message of an error object on one line, cut to a readable length."""
    message = error.get("message", "") if isinstance(error, dict) else error if isinstance(error, str) else ""
    return " ".join(str(message).split())[:LONGEST_MESSAGE]


def _code(error: object) -> int:
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) else 500


def _seconds(value: str | None) -> float | None:
    try:
        seconds = float(value) if value is not None else math.nan
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None


def _delta(event: dict[str, Any], sampling: Sampling) -> TokenDelta | None:
    if not event["choices"]:
        return None
    choice = event["choices"][0]
    ids, reason = choice["token_ids"], choice.get("finish_reason")
    if not (isinstance(ids, list) and all(type(i) is int for i in ids)):
        raise EngineError("the engine sent token_ids that are not a list of integers")
    if reason is not None and reason not in REASONS:
        raise EngineError(f"the engine ended the sequence with {reason!r}")
    if not ids and reason is None:
        return None
    rows = _rows(choice.get("logprobs"), sampling, len(ids))
    return TokenDelta(tuple(ids), rows, REASONS[reason] if reason is not None else None)


def _rows(logprobs: dict[str, Any] | None, sampling: Sampling, count: int) -> tuple[dict[int, float], ...] | None:
    wanted = sampling.logprob_token_ids
    if wanted is None and sampling.top_logprobs is None:
        return None
    given = logprobs["top_logprobs"] if logprobs is not None else []
    if len(given) != count:
        raise EngineError(f"the engine sent {count} ids with {len(given)} log-probabilities")
    rows = tuple({int(name.removeprefix(TOKEN_ID)): _logprob(value) for name, value in row.items()} for row in given)
    if wanted is None:
        return rows
    for row in rows:
        if missing := [i for i in wanted if i not in row]:
            raise EngineError(f"the engine gave no log-probability of the ids {missing}")
    return tuple({i: row[i] for i in wanted} for row in rows)


def _logprob(value: float) -> float:
    if math.isnan(value):
        raise ValueError("not a number")
    return -math.inf if value <= LEAST_LOGPROB else float(value)
