"""Accumulate the chunks of a streamed answer into events and, at its end, the result."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, JsonValue, ValidationError

from ._errors import ResponseFormatError, StreamError, StreamInterruptedError, error_message
from ._response import result_from
from ._sse import SSEDecoder
from ._types import AnswerDelta, ChatEvent, Finished, ReasoningDelta

_DONE = "[DONE]"


class _Delta(BaseModel):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class _Choice(BaseModel):
    delta: _Delta | None = None
    finish_reason: str | None = None


class ChatStreamReader:
    """From bytes of one streamed answer to its events; no I/O.

    `finish` must be called when the bytes end: it raises StreamInterruptedError if the answer did not.
    """

    def __init__(self, request_id: str | None) -> None:
        self._request_id = request_id
        self._decoder = SSEDecoder()
        self._head: dict[str, JsonValue] = {}
        self._reasoning: list[str] = []
        self._answer: list[str] = []
        self._finish_reason: str | None = None
        self._accounting: JsonValue = None
        self._usage: JsonValue = None
        self.done = False

    def feed(self, chunk: bytes) -> list[ChatEvent]:
        """Return the events that `chunk` completes. Raises StreamError on an error frame."""
        events: list[ChatEvent] = []
        for data in self._decoder.feed(chunk):
            if self.done:
                break
            if data.strip() == _DONE:
                self.done = True
                events.append(self._finished())
            else:
                events += self._take(self._parse(data))
        return events

    def finish(self, cause: Exception | None = None) -> None:
        """State that no more bytes come, `cause` being why if it was a failure."""
        if not self.done:
            why = f" ({cause or type(cause).__name__})" if cause else ""
            message = f"the stream ended before {_DONE}{why}"
            raise StreamInterruptedError(message, status=200, request_id=self._request_id) from cause

    def _parse(self, data: str) -> dict[str, Any]:
        try:
            frame = json.loads(data)
        except ValueError as exc:
            raise self._malformed(f"a stream frame is not JSON: {exc}", data) from exc
        if not isinstance(frame, dict):
            raise self._malformed("a stream frame is not a JSON object", frame)
        if "error" in frame:
            message = error_message(frame, "the server reported an error")
            raise StreamError(message, status=200, request_id=self._request_id, body=frame)
        return frame

    def _take(self, frame: Mapping[str, Any]) -> list[ChatEvent]:
        self._head = self._head or {name: frame.get(name) for name in ("id", "created", "model")}
        self._usage = frame.get("usage") or self._usage
        self._accounting = frame.get("lhrm") or self._accounting
        choices = frame.get("choices") or []
        if not choices:
            return []
        try:
            choice = _Choice.model_validate(choices[0])
        except (ValidationError, TypeError, KeyError) as exc:
            raise self._malformed("a stream frame has a malformed choice", dict(frame)) from exc
        self._finish_reason = choice.finish_reason or self._finish_reason
        return self._deltas(choice.delta or _Delta())

    def _deltas(self, delta: _Delta) -> list[ChatEvent]:
        # Both names carry the same text; reading one of them avoids doubling it.
        reasoning = delta.reasoning_content if delta.reasoning is None else delta.reasoning
        events: list[ChatEvent] = []
        if reasoning:
            self._reasoning.append(reasoning)
            events.append(ReasoningDelta(reasoning))
        if delta.content:
            self._answer.append(delta.content)
            events.append(AnswerDelta(delta.content))
        return events

    def _finished(self) -> Finished:
        return Finished(result_from(self._body(), self._request_id))

    def _body(self) -> dict[str, JsonValue]:
        mode = self._accounting.get("mode") if isinstance(self._accounting, dict) else None
        reasoning = "".join(self._reasoning) if self._reasoning or mode == "think" else None
        message: dict[str, JsonValue] = {
            "role": "assistant",
            "content": "".join(self._answer),
            "reasoning": reasoning,
            "reasoning_content": reasoning,
        }
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [{"index": 0, "message": message, "finish_reason": self._finish_reason}],
            "usage": self._usage,
            "lhrm": self._accounting,
        }

    def _malformed(self, message: str, body: JsonValue) -> ResponseFormatError:
        return ResponseFormatError(message, status=200, request_id=self._request_id, body=body)
