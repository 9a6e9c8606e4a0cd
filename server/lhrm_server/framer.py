"""The chunks of a stream, made from the events of one job."""

from __future__ import annotations

import time

from .accounting import ChoiceRecord, RequestFacts
from .chat import ChatEvent, ChoiceFinished, Decided, Finished, Generated
from .deltas import AnswerDelta, Delta, ReasoningDelta
from .policy import ModeDecision
from .shown import View
from .wire import (
    Json,
    ReplyForm,
    choice_object,
    decision_object,
    frame,
    lhrm_object,
    logprobs_object,
    usage_object,
    usage_of,
)


class StreamFramer:
    """Turns events into chunks.

    The role goes with the first text of a choice, never before it, and the decision with the first chunk of all. A
    choice's last chunk has its finish reason; the last of those also has the whole `lhrm` object.
    """

    def __init__(self, facts: RequestFacts, form: ReplyForm) -> None:
        self._base: Json = {
            "id": facts.completion_id,
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": facts.model,
        }
        self._facts = facts
        self._form = form
        self._decision: ModeDecision | None = None
        self._views: list[View] = []
        self._opened: set[int] = set()
        self._made: dict[int, tuple[int, int]] = {}
        self._unfinished = facts.n
        self._last: ChoiceRecord | None = None

    def frames(self, event: ChatEvent) -> list[bytes]:
        """Return the frames that `event` brings."""
        if isinstance(event, Decided):
            self._decision = event.decision
            self._views = [View(self._form.shown, event.decision.mode) for _ in range(self._facts.n)]
            return []
        if isinstance(event, Generated):
            if self._form.continuous_usage:
                self._made[event.index] = (event.completion_tokens, event.reasoning_tokens)
            return [self._chunk(event.index, delta) for delta in self._views[event.index].deltas(event.deltas)]
        if isinstance(event, ChoiceFinished):
            return self._finished(event.record)
        return self._end(event)

    def _finished(self, record: ChoiceRecord) -> list[bytes]:
        self._made[record.index] = (record.completion, record.reasoning)
        frames = [self._chunk(record.index, delta) for delta in self._views[record.index].finish(record)]
        if record.index not in self._opened:
            frames.append(self._chunk(record.index, AnswerDelta("")))
        self._unfinished -= 1
        if self._unfinished:
            return [*frames, frame(self._envelope([_finish(record)], {}))]
        # The last one waits for the record of the whole request.
        self._last = record
        return frames

    def _end(self, event: Finished) -> list[bytes]:
        if self._last is None:
            raise ValueError(f"completion_id={self._facts.completion_id}: the request ended before its choices")
        whole = lhrm_object(event.record)
        frames = [frame(self._envelope([_finish(self._last)], {"lhrm": whole}))]
        if self._form.include_usage:
            frames.append(frame({**self._base, "choices": [], "usage": usage_of(event.record), "lhrm": whole}))
        return frames

    def _chunk(self, index: int, delta: Delta) -> bytes:
        content, extra, logprobs = _delta(delta), {}, None
        if index not in self._opened:
            if not self._opened and self._decision is not None:
                extra = {"lhrm": decision_object(self._decision)}
            self._opened.add(index)
            content = {"role": "assistant", **content}
        if isinstance(delta, AnswerDelta) and delta.logprobs:
            logprobs = logprobs_object(delta.logprobs)
        choice = {"index": index, "delta": content, "logprobs": logprobs, "finish_reason": None}
        return frame(self._envelope([choice], extra))

    def _envelope(self, choices: list[Json], extra: Json) -> Json:
        usage: Json = {}
        if self._form.continuous_usage:
            completion, reasoning = (sum(counts) for counts in zip(*self._made.values(), strict=True))
            usage = {"usage": usage_object(self._facts.prompt_tokens, completion, reasoning)}
        elif self._form.include_usage:
            usage = {"usage": None}
        return {**self._base, "choices": choices, **usage, **extra}


def _finish(record: ChoiceRecord) -> Json:
    return {
        "index": record.index,
        "delta": {},
        "logprobs": None,
        "finish_reason": record.ended_by.value,
        "stop_reason": record.stop_string,
        "lhrm": choice_object(record),
    }


def _delta(delta: Delta) -> Json:
    if isinstance(delta, ReasoningDelta):
        return {"reasoning": delta.text, "reasoning_content": delta.text}
    if isinstance(delta, AnswerDelta):
        return {"content": delta.text}
    call: Json = {"index": delta.index}
    if delta.call_id is not None:
        call |= {"id": delta.call_id, "type": "function"}
    name = {} if delta.name is None else {"name": delta.name}
    return {"tool_calls": [{**call, "function": {**name, "arguments": delta.arguments}}]}
