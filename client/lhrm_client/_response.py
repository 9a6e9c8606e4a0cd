"""Read a chat completion body or a model list into typed values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, JsonValue, ValidationError

from ._errors import ResponseFormatError, decode_body
from ._types import ChatResult, ModelInfo, Usage


class _ModelList(BaseModel):
    data: list[ModelInfo]


def read_chat(content: bytes, request_id: str | None) -> ChatResult:
    """Return the result that a non-streaming response body holds. Raises ResponseFormatError."""
    return result_from(json_object(content, request_id), request_id)


def read_models(content: bytes, request_id: str | None) -> list[ModelInfo]:
    """Return the entries of a model list. Raises ResponseFormatError."""
    body = json_object(content, request_id)
    try:
        return _ModelList.model_validate(body).data
    except ValidationError as exc:
        raise format_error(exc, request_id, body) from exc


def first_model(models: list[ModelInfo]) -> str:
    """Return the name of the first model. Raises ResponseFormatError when there is none."""
    if not models:
        raise ResponseFormatError("the server lists no model; pass model=", status=200)
    return models[0].id


def json_object(content: bytes, request_id: str | None) -> dict[str, JsonValue]:
    """Return a body that must be a JSON object. Raises ResponseFormatError."""
    body = decode_body(content)
    if not isinstance(body, dict):
        raise ResponseFormatError("the response is not a JSON object", status=200, request_id=request_id, body=body)
    return body


def result_from(body: dict[str, JsonValue], request_id: str | None) -> ChatResult:
    """Return the result of a completion body. Raises ResponseFormatError when a part is missing."""
    if not isinstance(body.get("lhrm"), dict):
        raise ResponseFormatError(
            "the response has no 'lhrm' object: is the base URL that of an lhrm gateway?",
            status=200,
            request_id=request_id,
            body=body,
        )
    try:
        return ChatResult.model_validate(_flatten(body, request_id))
    except (ValidationError, KeyError, IndexError, TypeError, AttributeError) as exc:
        raise format_error(exc, request_id, body) from exc


def usage_from(usage: Any) -> Usage:
    """Return the counts of a wire's ``usage``. Raises ValidationError, TypeError or AttributeError."""
    details = usage.get("completion_tokens_details") or {}
    return Usage.model_validate({**usage, "reasoning_tokens": details.get("reasoning_tokens") or 0})


def reasoning_of(message: Mapping[str, Any]) -> Any:
    """Return the reasoning of a message or a delta; both names carry the same text, so one of them is read."""
    reasoning = message.get("reasoning")
    return message.get("reasoning_content") if reasoning is None else reasoning


def _flatten(body: Mapping[str, Any], request_id: str | None) -> dict[str, Any]:
    choices = [_choice(choice) for choice in body["choices"]]
    first = choices[0]
    return {
        **body["lhrm"],
        **{name: first[name] for name in ("answer", "reasoning", "tool_calls", "finish_reason")},
        "answer_missing": (first["accounting"] or {}).get("answer_missing"),
        "model": body["model"],
        "usage": usage_from(body["usage"]),
        "request_id": request_id or body.get("id"),
        "choices": choices,
        "raw": body,
    }


def _choice(choice: Mapping[str, Any]) -> dict[str, Any]:
    message = choice["message"]
    return {
        "index": choice.get("index", 0),
        "answer": message.get("content") or "",
        "reasoning": reasoning_of(message),
        "tool_calls": [{"id": call["id"], **call["function"]} for call in message.get("tool_calls") or []],
        "finish_reason": choice.get("finish_reason"),
        "stop_reason": choice.get("stop_reason"),
        "accounting": choice.get("lhrm"),
    }


def format_error(exc: Exception, request_id: str | None, body: dict[str, JsonValue]) -> ResponseFormatError:
    """Return the error for a body that lacks what `exc` missed."""
    if isinstance(exc, ValidationError):
        fields = sorted({".".join(str(part) for part in error["loc"]) for error in exc.errors()})
        message = f"missing or malformed in the response: {', '.join(fields)}"
    else:
        message = f"missing or malformed in the response: {type(exc).__name__} {exc}"
    return ResponseFormatError(message, status=200, request_id=request_id, body=body)
