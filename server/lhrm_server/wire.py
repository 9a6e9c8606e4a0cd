"""OpenAI response bodies and stream chunks, with the `lhrm` object, as plain JSON values."""

from __future__ import annotations

import json
import time
from typing import Any

from .accounting import Latency, Savings, UsageRecord
from .chat import ChatEvent, Decided, Finished, Generated
from .errors import ErrorBody
from .parser import AnswerDelta, ReasoningDelta, TextDelta
from .policy import ModeDecision

Json = dict[str, Any]
DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"


def frame(payload: Json | ErrorBody) -> bytes:
    """Return one server-sent event."""
    return b"data: " + json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode("utf-8") + b"\n\n"


def completion(record: UsageRecord, created: int, reasoning: str | None, answer: str) -> Json:
    """Return the body of a non-streaming reply."""
    message = {
        "role": "assistant",
        "content": answer,
        "reasoning": reasoning,
        "reasoning_content": reasoning,
        "refusal": None,
    }
    return {
        "id": record.facts.completion_id,
        "object": "chat.completion",
        "created": created,
        "model": record.facts.model,
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": record.ended_by.value,
                "lhrm": choice_object(record),
            }
        ],
        "usage": usage_object(record),
        "lhrm": lhrm_object(record),
    }


def usage_object(record: UsageRecord) -> Json:
    """Return `usage`: completion_tokens are all ids that generate returned."""
    counts = record.counts
    return {
        "prompt_tokens": counts.prompt,
        "completion_tokens": counts.completion,
        "total_tokens": counts.prompt + counts.completion,
        "completion_tokens_details": {"reasoning_tokens": counts.reasoning},
    }


def choice_object(record: UsageRecord) -> Json:
    """Return the `lhrm` object of one choice: its own counts and endings."""
    ending = record.reasoning_ended_by
    return {
        "reasoning_tokens": record.counts.reasoning,
        "answer_tokens": record.counts.answer,
        "overhead_tokens": record.counts.overhead,
        "ended_by": record.ended_by.value,
        "reasoning_ended_by": None if ending is None else ending.value,
    }


def lhrm_object(record: UsageRecord) -> Json:
    """Return the `lhrm` object of a finished reply."""
    if record.decision is None:
        raise ValueError(f"completion_id={record.facts.completion_id}: no decision, no lhrm object")
    return {
        **decision_object(record.decision),
        **choice_object(record),
        "decide_tokens": record.counts.decide,
        "latency": _latency_object(record.latency),
        "savings": None if record.savings is None else _savings_object(record.savings),
    }


def decision_object(decision: ModeDecision) -> Json:
    """Return the part of the `lhrm` object that is known before generation."""
    return {
        "mode": decision.mode.value,
        "source": decision.source.value,
        "p_think": decision.p_think,
        "threshold": decision.threshold,
    }


def _latency_object(latency: Latency) -> Json:
    return {
        "queue_ms": _rounded(latency.queue_ms),
        "decide_ms": _rounded(latency.decide_ms),
        "first_token_ms": _rounded(latency.first_token_ms),
        "first_answer_token_ms": _rounded(latency.first_answer_token_ms),
        "total_ms": _rounded(latency.total_ms),
    }


def _savings_object(savings: Savings) -> Json:
    return {
        "tokens": savings.tokens,
        "interval": list(savings.interval),
        "confidence": savings.confidence,
        "n": savings.n,
        "method": savings.method,
        "provenance": savings.provenance,
    }


def _rounded(value_ms: float | None) -> float | None:
    return None if value_ms is None else round(value_ms, 3)


class StreamFramer:
    """Turns the events of one job into chunks; the role goes with the first text, never before it."""

    def __init__(self, completion_id: str, model: str, *, include_usage: bool) -> None:
        self._base: Json = {
            "id": completion_id,
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        self._include_usage = include_usage
        self._decision: ModeDecision | None = None
        self._opened = False

    def frames(self, event: ChatEvent) -> list[bytes]:
        """Return the frames that `event` brings."""
        if isinstance(event, Decided):
            self._decision = event.decision
            return []
        if isinstance(event, Generated):
            return [self._chunk(_delta(delta), None, {}) for delta in event.deltas]
        return self._last(event)

    def _last(self, event: Finished) -> list[bytes]:
        record = event.record
        whole = lhrm_object(record)
        frames = []
        if not self._opened:
            frames.append(self._chunk({"content": ""}, None, {}))
        finish = self._choice({}, record.ended_by.value)
        finish["lhrm"] = choice_object(record)
        frames.append(frame(self._envelope([finish], {"lhrm": whole})))
        if self._include_usage:
            frames.append(frame({**self._base, "choices": [], "usage": usage_object(record), "lhrm": whole}))
        return frames

    def _chunk(self, delta: Json, finish_reason: str | None, extra: Json) -> bytes:
        if not self._opened:
            self._opened = True
            delta = {"role": "assistant", **delta}
            if self._decision is not None:
                extra = {**extra, "lhrm": decision_object(self._decision)}
        return frame(self._envelope([self._choice(delta, finish_reason)], extra))

    def _choice(self, delta: Json, finish_reason: str | None) -> Json:
        return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}

    def _envelope(self, choices: list[Json], extra: Json) -> Json:
        usage = {"usage": None} if self._include_usage else {}
        return {**self._base, "choices": choices, **usage, **extra}


def _delta(delta: TextDelta) -> Json:
    if isinstance(delta, ReasoningDelta):
        return {"reasoning": delta.text, "reasoning_content": delta.text}
    return {"content": delta.text}


class Collector:
    """Gathers the events of one job for a non-streaming reply."""

    def __init__(self) -> None:
        self._reasoning: list[str] = []
        self._answer: list[str] = []
        self.record: UsageRecord | None = None

    def take(self, event: ChatEvent) -> None:
        """Take one event."""
        if isinstance(event, Finished):
            self.record = event.record
        elif isinstance(event, Generated):
            for delta in event.deltas:
                target = self._answer if isinstance(delta, AnswerDelta) else self._reasoning
                target.append(delta.text)

    def body(self, record: UsageRecord) -> Json:
        """Return the reply; the reasoning is null in no-think and a string, perhaps empty, in think."""
        thinks = record.reasoning_ended_by is not None
        reasoning = "".join(self._reasoning) if thinks else None
        return completion(record, int(time.time()), reasoning, "".join(self._answer))
