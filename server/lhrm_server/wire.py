"""The parts of OpenAI bodies and chunks, with the `lhrm` object, as plain JSON values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .accounting import ChoiceRecord, Latency, Savings, UsageRecord
from .control import Shown
from .deltas import TokenLogprob
from .errors import ErrorBody
from .policy import ModeDecision

Json = dict[str, Any]
DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"
# Built once: json.dumps would build an encoder for every frame.
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True)
class ReplyForm:
    """What a request wants to see of its reply, streaming or not."""

    shown: Shown = Shown.SEPARATE
    logprobs: bool = False
    include_usage: bool = False
    continuous_usage: bool = False


def frame(payload: Json | ErrorBody) -> bytes:
    """Return one server-sent event."""
    return b"data: " + _ENCODER.encode(payload).encode("utf-8") + b"\n\n"


def usage_object(prompt: int, completion: int, reasoning: int) -> Json:
    """Return `usage`; completion tokens are all ids of all choices, reasoning tokens those between the think tags."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def usage_of(record: UsageRecord) -> Json:
    """Return `usage` of a finished reply."""
    return usage_object(record.counts.prompt, record.counts.completion, record.counts.reasoning)


def choice_object(choice: ChoiceRecord) -> Json:
    """Return the `lhrm` object of one choice: its own counts and endings."""
    ending = choice.reasoning_ended_by
    return {
        "reasoning_tokens": choice.reasoning,
        "answer_tokens": choice.answer,
        "overhead_tokens": choice.overhead,
        "ended_by": choice.ended_by.value,
        "reasoning_ended_by": None if ending is None else ending.value,
        "answer_missing": choice.answer_missing,
        "answer_retried": choice.answer_retried,
    }


def lhrm_object(record: UsageRecord) -> Json:
    """Return the `lhrm` object of a finished reply: counts are sums, endings those of the first choice."""
    if record.decision is None:
        raise ValueError(f"completion_id={record.facts.completion_id}: no decision, no lhrm object")
    counts, ending = record.counts, record.reasoning_ended_by
    return {
        **decision_object(record.decision),
        "reasoning_tokens": counts.reasoning,
        "answer_tokens": counts.answer,
        "overhead_tokens": counts.overhead,
        "ended_by": record.ended_by.value,
        "reasoning_ended_by": None if ending is None else ending.value,
        "decide_tokens": counts.decide,
        "latency": _latency_object(record.latency),
        "savings": None if record.savings is None else _savings_object(record.savings),
    }


def logprobs_object(entries: Sequence[TokenLogprob]) -> Json:
    """Return `logprobs` of a choice or a chunk."""
    return {
        "content": [
            {**_token(entry.data, entry.logprob), "top_logprobs": [_token(*pair) for pair in entry.top]}
            for entry in entries
        ],
        "refusal": None,
    }


def _token(data: bytes, logprob: float) -> Json:
    # Half a character has no text of its own; the bytes of all tokens spell the content.
    return {"token": data.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(data)}


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
