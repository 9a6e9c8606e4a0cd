"""The chat request of a job, and what its streamed reply says when; no I/O.

Any OpenAI-compatible endpoint will do. One that sends no ``lhrm`` object is taken to think where it sends reasoning.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from .arms import Arm
from .errors import describe
from .prompts import Prompt
from .rows import Reply, Savings

ERROR_CHARACTERS = 200


class ReplyError(Exception):
    """A reply that is an error, or not one that can be counted; the message goes to the row."""


class _Accounting(BaseModel):
    """What is read of an ``lhrm`` object; a newer server may send more."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    mode: str
    source: str | None = None
    p_think: float | None = None
    reasoning_tokens: int
    answer_tokens: int
    decide_tokens: int = 0
    ended_by: str | None = None
    reasoning_ended_by: str | None = None
    savings: dict[str, Any] | None = None
    latency: dict[str, Any] | None = None


def build_body(
    arm: Arm, model: str, prompt: Prompt, seed: int, max_tokens: int | None, temperature: float | None
) -> dict[str, JsonValue]:
    """Return the body of a streamed chat request; between the arms of a pair only the arm's own fields differ."""
    body: dict[str, JsonValue] = {
        "model": model,
        "messages": [turn.model_dump() for turn in prompt.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        "seed": seed,
    }
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    if temperature is not None:
        body["temperature"] = temperature
    return {**body, **arm.mode_fields()}


def status_message(status: int, content: bytes) -> str:
    """Return the row's error for a reply that is not a stream: status, code and message."""
    return f"{status} {_error_text(content)}"


def _error_text(content: bytes) -> str:
    """Return ``code: message`` of an error body in the OpenAI shape, any other body as it is, cut where it is long."""
    text = content.decode("utf-8", errors="replace")
    try:
        error = json.loads(text)["error"]
        parts = [str(part) for part in (error.get("code"), error.get("message")) if part]
    except (ValueError, KeyError, TypeError, AttributeError):
        parts = [text]
    return " ".join(": ".join(parts).split())[:ERROR_CHARACTERS]


class StreamReader:
    """Follows one streamed reply, line by line. Times are what the caller gives, in any unit and from any start."""

    def __init__(self, answer_after: str = "") -> None:
        self._answer_after = answer_after
        self._content = ""
        self._reasoning_seen = False
        self._usage: Mapping[str, Any] | None = None
        self._accounting: Mapping[str, Any] | None = None
        self._finish_reason: str | None = None
        self.first_token: float | None = None
        self.first_answer: float | None = None
        self.done = False

    def feed(self, line: bytes, now: float) -> None:
        """Take one line of the stream as it came. Raises ReplyError on an error event or one that is no JSON object."""
        if not line.startswith(b"data:"):
            return  # a comment, a blank line, or a field that carries nothing here
        data = line[5:].strip()
        if data == b"[DONE]":
            self.done = True
            return
        try:
            event = json.loads(data)
        except ValueError as exc:
            raise ReplyError(f"a stream event is not JSON: {exc}") from exc
        if not isinstance(event, dict):
            raise ReplyError("a stream event is not a JSON object")
        if "error" in event:
            raise ReplyError(f"in the stream: {_error_text(data)}")
        try:
            self._take(event, now)
        except (AttributeError, TypeError) as exc:
            raise ReplyError(f"a stream event is not a chat completion chunk: {exc}") from exc

    def _take(self, event: Mapping[str, Any], now: float) -> None:
        self._usage = event.get("usage") or self._usage
        self._accounting = event.get("lhrm") or self._accounting
        for choice in event.get("choices") or ():
            self._finish_reason = choice.get("finish_reason") or self._finish_reason
            delta = choice.get("delta") or {}
            if delta.get("reasoning") or delta.get("reasoning_content"):
                self._reasoning_seen = True
                self.first_token = now if self.first_token is None else self.first_token
            if content := delta.get("content"):
                self.first_token = now if self.first_token is None else self.first_token
                self._content += content
                if self.first_answer is None and self._answer():
                    self.first_answer = now

    def _answer(self) -> str:
        """Return the content behind the reasoning that an endpoint may have left in it."""
        if not self._answer_after:
            return self._content
        _, found, answer = self._content.partition(self._answer_after)
        return answer.lstrip() if found else ""

    def reply(self) -> Reply:
        """Return what the whole stream said. Raises ReplyError where it was cut off or told no token counts."""
        if not self.done:
            raise ReplyError("the stream ended before [DONE]")
        if self._usage is None:
            raise ReplyError("the reply has no usage")
        try:
            return self._counted(self._usage)
        except ValidationError as exc:
            raise ReplyError(f"malformed reply: {describe(exc)}"[:ERROR_CHARACTERS]) from exc
        except (AttributeError, TypeError) as exc:
            raise ReplyError(f"malformed usage or lhrm object: {exc}"[:ERROR_CHARACTERS]) from exc

    def _counted(self, usage: Mapping[str, Any]) -> Reply:
        counts = {name: usage.get(name) for name in ("prompt_tokens", "completion_tokens")}
        if self._accounting is None:
            details = usage.get("completion_tokens_details") or {}
            reasoned = self._reasoning_seen or (bool(self._answer_after) and self._answer_after in self._content)
            return Reply.model_validate(
                {
                    **counts,
                    "mode": "think" if reasoned or details.get("reasoning_tokens") else "no_think",
                    "reasoning_tokens": details.get("reasoning_tokens"),
                    "ended_by": self._finish_reason,
                    "answer": self._answer(),
                }
            )
        told = _Accounting.model_validate(self._accounting)
        fields = told.model_dump(exclude={"savings", "latency"})
        times = _picked(told.latency or {}, ("queue_ms", "decide_ms"))
        savings = None if told.savings is None else _picked(told.savings, Savings.model_fields)
        return Reply.model_validate({**fields, **counts, **times, "savings": savings, "answer": self._content})


def _picked(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: values.get(name) for name in names}
