"""Accumulate the chunks of a streamed answer into events and, at its end, the result."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import httpx
from pydantic import JsonValue, ValidationError

from ._errors import ResponseFormatError, StreamError, StreamInterruptedError, StreamTimeoutError, error_message
from ._events import ChatEvent, Finished, ModeChosen, UsageReport
from ._gathered import ChoicePiece, GatheredChoice
from ._response import result_from, usage_from
from ._sse import SSEDecoder
from ._types import Decision

_DONE = "[DONE]"


class ChatStreamReader:
    """From bytes of one streamed answer to its events; no I/O.

    `finish` must be called when the bytes end: it raises StreamInterruptedError if the answer did not.
    """

    def __init__(self, request_id: str | None) -> None:
        self._request_id = request_id
        self._decoder = SSEDecoder()
        self._head: dict[str, JsonValue] = {}
        self._choices: dict[int, GatheredChoice] = {}
        self._accounting: dict[str, JsonValue] = {}
        self._usage: JsonValue = None
        self.done = False

    def feed(self, chunk: bytes) -> Iterator[ChatEvent]:
        """Yield the events that `chunk` completes; at an error frame, after those before it, raise StreamError."""
        for data in self._decoder.feed(chunk):
            if self.done:
                return
            if data.strip() == _DONE:
                self.done = True
                yield Finished(result_from(self._body(), self._request_id))
            else:
                yield from self._take(self._parse(data))

    def finish(self, cause: Exception | None = None) -> None:
        """State that no more bytes come, `cause` being why if it was a failure."""
        if self.done:
            return
        why = f" ({str(cause) or type(cause).__name__})" if cause else ""
        kind = StreamTimeoutError if isinstance(cause, httpx.TimeoutException) else StreamInterruptedError
        raise kind(f"the stream ended before {_DONE}{why}", status=200, request_id=self._request_id) from cause

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
        if not self._head:
            self._head = {name: frame.get(name) for name in ("id", "created", "model")}
        try:
            return [*self._decision(frame), *self._deltas(frame), *self._counts(frame)]
        except (ValueError, TypeError, AttributeError) as exc:
            raise self._malformed(f"a stream frame is malformed: {_short(exc)}", dict(frame)) from exc

    def _decision(self, frame: Mapping[str, Any]) -> list[ChatEvent]:
        found = frame.get("lhrm")
        if not found:
            return []
        first = not self._accounting
        self._accounting = dict(found)
        return [ModeChosen(**Decision.model_validate(found).model_dump())] if first else []

    def _deltas(self, frame: Mapping[str, Any]) -> list[ChatEvent]:
        events: list[ChatEvent] = []
        for found in frame.get("choices") or []:
            piece = ChoicePiece.model_validate(found)
            if piece.index not in self._choices:
                self._choices[piece.index] = GatheredChoice(piece.index)
            events += self._choices[piece.index].take(piece)
        return events

    def _counts(self, frame: Mapping[str, Any]) -> list[ChatEvent]:
        # Counts beside a choice are only those so far.
        if not frame.get("usage"):
            return []
        self._usage = frame["usage"]
        return [] if frame.get("choices") else [UsageReport(usage_from(self._usage))]

    def _body(self) -> dict[str, JsonValue]:
        thinking = self._accounting.get("mode") == "think"
        return {
            **self._head,
            "object": "chat.completion",
            "choices": [choice.whole(thinking) for _, choice in sorted(self._choices.items())],
            "usage": self._usage,
            "lhrm": self._accounting or None,
        }

    def _malformed(self, message: str, body: JsonValue) -> ResponseFormatError:
        return ResponseFormatError(message, status=200, request_id=self._request_id, body=body)


def _short(exc: Exception) -> str:
    if isinstance(exc, ValidationError):
        return ", ".join(".".join(str(part) for part in error["loc"]) or error["msg"] for error in exc.errors())
    return str(exc)
