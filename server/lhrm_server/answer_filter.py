"""What of an answer goes out when more than its plain text is asked for: stop strings, log-probabilities, tools."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Iterable, Mapping

from lhrm_train.format import ChatTokenizer

from .answer_plan import AnswerPlan
from .deltas import AnswerDelta, Delta, TokenLogprob
from .engine import EngineError
from .stops import StopMatcher
from .tool_calls import ToolReader, tool_reader

LEAST_LOGPROB = -9999.0
"""JSON has no infinity; OpenAI writes this for what is all but impossible."""


class AnswerFilter:
    """Takes the ids of one answer; gives its deltas, the same text, entries and calls for every chunking.

    Log-probabilities have one entry per answer id, given with the character that the id begins or goes on with; an
    entry whose first byte lies in or behind a stop string is dropped. With tools they cover the answer as it was
    generated, calls included.
    """

    def __init__(self, tokenizer: ChatTokenizer, plan: AnswerPlan) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = StopMatcher(plan.stop)
        self._reader = None if plan.tools is None else tool_reader(plan.tools)
        self._top = plan.top_logprobs
        self._rows: deque[Mapping[int, float]] = deque()
        self._entries: deque[tuple[int, TokenLogprob]] = deque()
        self._decoded = 0
        self._released = 0

    @property
    def stopped(self) -> str | None:
        """The stop string that ended the answer."""
        return self._stops.matched

    @property
    def reader(self) -> ToolReader | None:
        """What reads the tool calls, if there are tools."""
        return self._reader

    def expect(self, rows: Iterable[Mapping[int, float]]) -> None:
        """Note the log-probabilities of ids that are about to come, in their order; the answer's come first."""
        if self._top is not None:
            self._rows.extend(rows)

    def feed(self, ids: Iterable[int]) -> list[Delta]:
        """Take ids of the answer."""
        return [delta for token in ids for delta in self._one(token)]

    def finish(self) -> list[Delta]:
        """Release what was held: the answer is over."""
        text = self._stops.feed(self._decoder.decode(b"", final=True))
        self._decoder.reset()
        text += self._stops.finish()
        deltas = self._out(text, last=self.stopped is None)
        return deltas if self._reader is None else deltas + self._reader.finish()

    def _one(self, token: int) -> list[Delta]:
        data = self._tokenizer.token_bytes(token)
        text = self._decoder.decode(data[:1])
        # The character that the first byte belongs to: one that is still incomplete, or the last one decoded.
        whole = bool(data) and not self._decoder.getstate()[0]
        begin = self._decoded + len(text) - whole
        text += self._decoder.decode(data[1:])
        self._decoded += len(text)
        if self._top is not None:
            self._entries.append((begin, self._entry(token, data)))
        return self._out(self._stops.feed(text), last=False)

    def _out(self, text: str, *, last: bool) -> list[Delta]:
        """Return what goes out with released text; with the `last` of an answer go all entries that are left."""
        self._released += len(text)
        entries = []
        while self._entries and (last or self._entries[0][0] < self._released):
            entries.append(self._entries.popleft()[1])
        if self._reader is None:
            return [AnswerDelta(text, tuple(entries))] if text or entries else []
        deltas = self._reader.feed(text)
        return [*deltas, AnswerDelta("", tuple(entries))] if entries else deltas

    def _entry(self, token: int, data: bytes) -> TokenLogprob:
        row = self._rows.popleft() if self._rows else {}
        if token not in row:
            raise EngineError(f"the engine gave no log-probability of token {token}")
        best = sorted(row.items(), key=lambda item: -item[1])[: self._top]
        top = tuple((self._tokenizer.token_bytes(other), max(value, LEAST_LOGPROB)) for other, value in best)
        return TokenLogprob(data, max(row[token], LEAST_LOGPROB), top)


def answer_filter(tokenizer: ChatTokenizer, plan: AnswerPlan) -> AnswerFilter | None:
    """Return the filter that a plan needs; None where plain text is all."""
    plain = not plan.stop and plan.top_logprobs is None and plan.tools is None
    return None if plain else AnswerFilter(tokenizer, plan)
