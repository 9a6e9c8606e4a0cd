"""The body of a reply that is no stream, gathered from the events of one job."""

from __future__ import annotations

import time

from .accounting import ChoiceRecord, UsageRecord
from .chat import ChatEvent, ChoiceFinished, Decided, Generated
from .control import Shown
from .deltas import AnswerDelta, Delta, ReasoningDelta, TokenLogprob, ToolCallDelta
from .shown import View
from .wire import Json, ReplyForm, choice_object, lhrm_object, logprobs_object, usage_of


class _Gathered:
    """The message of one choice."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.reasoning: list[str] = []
        self.content: list[str] = []
        self.logprobs: list[TokenLogprob] = []
        self.calls: list[Json] = []

    def take(self, delta: Delta) -> None:
        if isinstance(delta, ReasoningDelta):
            self.reasoning.append(delta.text)
        elif isinstance(delta, AnswerDelta):
            self.content.append(delta.text)
            self.logprobs += delta.logprobs
        else:
            self._call(delta)

    def _call(self, delta: ToolCallDelta) -> None:
        if delta.index == len(self.calls):
            function = {"name": delta.name, "arguments": ""}
            self.calls.append({"id": delta.call_id, "type": "function", "function": function})
        self.calls[delta.index]["function"]["arguments"] += delta.arguments

    def message(self, record: ChoiceRecord, shown: Shown) -> Json:
        """Return the message; the reasoning is null in no-think and a string, perhaps empty, in think."""
        content = "".join(self.content)
        message: Json = {"role": "assistant", "content": content or (None if self.calls else ""), "refusal": None}
        if shown is Shown.SEPARATE:
            reasoning = None if record.reasoning_ended_by is None else "".join(self.reasoning)
            message |= {"reasoning": reasoning, "reasoning_content": reasoning}
        return message | ({"tool_calls": self.calls} if self.calls else {})


class Collector:
    """Gathers the events of one job."""

    def __init__(self, form: ReplyForm, n: int = 1) -> None:
        self._form = form
        self._n = n
        self._choices: list[_Gathered] = []
        self.record: UsageRecord | None = None

    def take(self, event: ChatEvent) -> None:
        """Take one event."""
        if isinstance(event, Decided):
            self._choices = [_Gathered(View(self._form.shown, event.decision.mode)) for _ in range(self._n)]
        elif isinstance(event, Generated):
            choice = self._choices[event.index]
            for delta in choice.view.deltas(event.deltas):
                choice.take(delta)
        elif isinstance(event, ChoiceFinished):
            choice = self._choices[event.record.index]
            for delta in choice.view.finish(event.record):
                choice.take(delta)
        else:
            self.record = event.record

    def body(self, record: UsageRecord) -> Json:
        """Return the reply."""
        return {
            "id": record.facts.completion_id,
            "object": "chat.completion",
            "created": int(time.time()),
            "model": record.facts.model,
            "choices": [self._choice(choice) for choice in record.choices],
            "usage": usage_of(record),
            "lhrm": lhrm_object(record),
        }

    def _choice(self, record: ChoiceRecord) -> Json:
        gathered = self._choices[record.index]
        return {
            "index": record.index,
            "message": gathered.message(record, self._form.shown),
            "logprobs": logprobs_object(gathered.logprobs) if self._form.logprobs else None,
            "finish_reason": record.ended_by.value,
            "stop_reason": record.stop_string,
            "lhrm": choice_object(record),
        }
