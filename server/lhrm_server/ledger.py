"""Where a UsageRecord goes: the metrics, one log line without any text, and whoever else asked for it."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

from .accounting import ChoiceRecord, UsageRecord
from .metrics import Metrics, outcome

log = logging.getLogger("lhrm_server.usage")
RecordSink = Callable[[UsageRecord], None]


class Ledger:
    """Writes every record exactly where it belongs."""

    def __init__(self, metrics: Metrics, on_record: RecordSink | None = None) -> None:
        self._metrics = metrics
        self._on_record = on_record

    def write(self, record: UsageRecord) -> None:
        """Write one record."""
        self._metrics.write(record)
        log.info("%s", log_line(record))
        if self._on_record is not None:
            self._on_record(record)


def log_line(record: UsageRecord) -> str:
    """Return the record as one line of JSON: names, counts and timings only."""
    facts, decision, counts, latency = record.facts, record.decision, record.counts, record.latency
    return json.dumps(
        {
            "event": "chat",
            "request_id": facts.request_id,
            "completion_id": facts.completion_id,
            "model": facts.model,
            "stream": facts.stream,
            "requested": facts.wish.value,
            "mode": decision and decision.mode.value,
            "source": decision and decision.source.value,
            "p_think": decision and decision.p_think,
            "threshold": decision and decision.threshold,
            "n": facts.n,
            "outcome": outcome(record),
            "ended_by": record.ended_by.value,
            "reasoning_ended_by": record.reasoning_ended_by and record.reasoning_ended_by.value,
            "answer_missing": record.answer_missing,
            "choices": [_choice(choice) for choice in record.choices] if facts.n > 1 else None,
            "prompt_tokens": counts.prompt,
            "reasoning_tokens": counts.reasoning,
            "answer_tokens": counts.answer,
            "overhead_tokens": counts.overhead,
            "decide_tokens": counts.decide,
            "decide_ms": _rounded(latency.decide_ms),
            "first_token_ms": _rounded(latency.first_token_ms),
            "first_answer_token_ms": _rounded(latency.first_answer_token_ms),
            "total_ms": _rounded(latency.total_ms),
        }
    )


def _choice(choice: ChoiceRecord) -> dict[str, object]:
    return {
        "ended_by": choice.ended_by.value,
        "reasoning_ended_by": choice.reasoning_ended_by and choice.reasoning_ended_by.value,
        "answer_missing": choice.answer_missing,
        "reasoning_tokens": choice.reasoning,
        "answer_tokens": choice.answer,
        "overhead_tokens": choice.overhead,
    }


def _rounded(value_ms: float | None) -> float | None:
    return None if value_ms is None else round(value_ms, 1)
