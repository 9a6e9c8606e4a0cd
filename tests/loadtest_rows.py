"""Rows of a load test written by hand, for tests of what is computed from them."""

from __future__ import annotations

from lhrm_loadtest.rows import Reply, Row, RowWriter, Savings

SOURCE = {"auto": "model", "think": "request", "no_think": "request", "plain": None}


def reply(mode: str, tokens: int, *, saved: float | None = None, p_think: float | None = None, prompt_tokens: int = 10):
    """A reply of `tokens` completion tokens, of which 2 are overhead and, in no-think, the others are the answer."""
    reasoning = tokens - 4 if mode == "think" else 0
    savings = None if saved is None else Savings(tokens=saved, interval=(saved - 5, saved + 5), confidence=0.9)
    return Reply(
        mode=mode,
        p_think=p_think,
        prompt_tokens=prompt_tokens,
        completion_tokens=tokens,
        reasoning_tokens=reasoning,
        answer_tokens=tokens - reasoning - 2,
        decide_tokens=0 if saved is None else 1,
        ended_by="stop",
        savings=savings,
        answer="right",
    )


def row(
    arm: str,
    prompt: str,
    result: Reply | None,
    *,
    pair: int,
    score: float | None = 1.0,
    ms: float = 1.0,
    **more: object,
) -> Row:
    """A request sent when it was due, with tokens after `ms`, `2 * ms` and `3 * ms`; `more` replaces fields."""
    asked = more.pop("asked", "auto" if arm.startswith("auto") else arm)
    start = more.pop("scheduled_ms", 0.0)
    fields = {
        "position": pair * 10,
        "session": 0,
        "block": 0,
        "repeat": 0,
        "pair": pair,
        "warmup": False,
        "arm": arm,
        "asked": asked,
        "model": "m",
        "prompt": prompt,
        "task": "add",
        "level": 1,
        "closed": False,
        "seed": 0,
        "concurrency": 4,
        "rate": None,
        "scheduled_ms": start,
        "sent_ms": start,
        "first_token_ms": start + ms if result else None,
        "first_answer_ms": start + 2 * ms if result else None,
        "end_ms": start + 3 * ms,
        "driver_cpu_ms": 0.1,
        "request_id": None,
        "reply": result.model_copy(update={"source": SOURCE[asked]}) if result else None,
        "score": score if result else None,
        "error": None if result else "500 engine_error: engine failed",
    }
    return Row(**{**fields, **more})


def write(directory, rows) -> None:
    """Write rows as a run of their own."""
    with RowWriter(directory) as writer:
        for one in rows:
            writer.write(one)


# Three complete pairs that save 50, 30 and -10 of 60, 40 and 20 tokens, and one whose auto request failed.
ROWS = [
    row("auto", "a", reply("no_think", 10, saved=48), pair=0, ms=10, position=0),
    row("think", "a", reply("think", 60), pair=0, ms=20, position=1),
    row("think", "b", reply("think", 40), pair=1, ms=40, score=0.0, position=2),
    row("auto", "b", reply("no_think", 10, saved=20), pair=1, ms=30, position=3),
    row("auto", "c", reply("think", 30, saved=0), pair=2, ms=50, score=0.0, level=2, position=4),
    row("think", "c", reply("think", 20), pair=2, ms=60, level=2, position=5),
    row("think", "d", reply("think", 100), pair=3, ms=80, level=2, position=6),
    row("auto", "d", None, pair=3, level=2, position=7),
]
