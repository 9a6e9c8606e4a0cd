"""What the terminal says about an answer: who chose its mode, what it cost, what it saved."""

from __future__ import annotations

from ._events import ModeChosen
from ._types import ChatResult

_CHOSEN_BY = {"request": "as asked", "policy": "by the server's policy"}


def decision_note(event: ModeChosen) -> str:
    """Return who chose the mode, with P(think) where the model did."""
    if event.p_think is None:
        return _CHOSEN_BY.get(event.source, event.source)
    threshold = "" if event.threshold is None else f", threshold {event.threshold:g}"
    return f"P(think) {event.p_think:.3f}{threshold}"


def savings_line(result: ChatResult) -> str:
    """Return tokens by kind, the estimated saving, how the answer ended and how long it took."""
    counts = f"{result.reasoning_tokens} reasoning, {result.answer_tokens} answer"
    parts = [f"{result.usage.completion_tokens} tokens ({counts})", _saving(result)]
    ending = _ending(result)
    if ending:
        parts.append(ending)
    if result.latency.total_ms is not None:
        parts.append(f"{result.latency.total_ms / 1000:.2f} s")
    return " · ".join(parts)


def _saving(result: ChatResult) -> str:
    if result.savings is None:
        return "no estimate of a saving"
    if result.mode == "think":
        return "saved 0, it chose to think"
    tokens, interval = round(result.savings.tokens), result.savings.interval
    words, sign = (f"saved about {tokens}", 1) if tokens >= 0 else (f"cost about {-tokens} more than thinking", -1)
    if interval is None:
        return words
    low, high = sorted(round(sign * end) for end in interval)
    return f"{words} ({low} to {high})"


def _ending(result: ChatResult) -> str | None:
    if result.answer_missing is not None:
        return f"no answer ({result.answer_missing})"
    return "cut at the limit of tokens" if result.ended_by == "length" else None
