"""From generated ids to reasoning and answer text, the same for every chunking."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence

from lhrm_train.format import ChatTokenizer, FormatError, Mode, Span, SpanDelta, SpanSplitter

from .answer_filter import AnswerFilter
from .deltas import AnswerDelta, Delta, ReasoningDelta, ToolCallDelta
from .engine import EngineError


class _SpanText:
    """Turns the ids of one span into text as soon as whole characters are there, and counts them."""

    def __init__(self, tokenizer: ChatTokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.tokens = 0

    def feed(self, ids: Sequence[int]) -> str:
        self.tokens += len(ids)
        return self._decoder.decode(b"".join(map(self._tokenizer.token_bytes, ids)))

    def finish(self) -> str:
        text = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return text


class AnswerParser:
    """Splits one completion; the mode is known from the prompt, never guessed.

    Bytes of an incomplete character are held back until the character is whole or its span ends. A filter, where
    there is one, takes the ids of the answer; the end of the answer is then told to it alone, by `finish`.
    """

    def __init__(self, tokenizer: ChatTokenizer, mode: Mode, answer_filter: AnswerFilter | None = None) -> None:
        self._splitter = SpanSplitter(tokenizer.tags, tokenizer.turn_end_id, mode)
        self._reasoning = _SpanText(tokenizer)
        self._answer = _SpanText(tokenizer)
        self._filter = answer_filter
        self._answer_tokens = 0
        self._mode = mode
        self._openers = (tokenizer.tags.think, tokenizer.tags.no_think)
        self.overhead_tokens = 0
        self.stray_tags = 0
        self.has_answer = False

    @property
    def reasoning_tokens(self) -> int:
        """Ids between the think tags, the tags not counted."""
        return self._reasoning.tokens

    @property
    def answer_tokens(self) -> int:
        """Ids of the answer."""
        return self._answer_tokens

    @property
    def completion_tokens(self) -> int:
        """All ids fed, except a closing tag that is still held."""
        return self.reasoning_tokens + self.answer_tokens + self.overhead_tokens

    @property
    def unclosed(self) -> bool:
        """Tell whether the closing tag of the mode never came."""
        closed = self._splitter.reasoning_closed if self._mode is Mode.THINK else self._splitter.answer_closed
        return not closed

    @property
    def reasoning_closed(self) -> bool:
        """Tell whether the model closed its reasoning."""
        return self._splitter.reasoning_closed

    def feed(self, ids: Iterable[int]) -> list[Delta]:
        """Return what `ids` complete. Raises EngineError when ids follow the end of turn."""
        ids = tuple(ids)
        for token in ids:
            self.stray_tags += token in self._openers
        try:
            spans = self._splitter.feed(ids)
        except FormatError as exc:
            raise EngineError(str(exc)) from exc
        return [delta for span in spans for delta in self._deltas(span)]

    def finish(self) -> list[Delta]:
        """Release what was held: generation is over."""
        deltas = [delta for span in self._splitter.finish() for delta in self._deltas(span)]
        deltas += self._reasoning_text(self._reasoning.finish())
        if self._filter is None:
            return deltas + self._answer_text(self._answer.finish())
        return deltas + self._noted(self._filter.finish())

    def _deltas(self, span: SpanDelta) -> list[Delta]:
        if span.span is Span.REASONING:
            return self._reasoning_text(self._reasoning.feed(span.ids))
        # Overhead and answer both follow the reasoning, so that nothing can complete its last character.
        ended = self._reasoning_text(self._reasoning.finish())
        if span.span is Span.ANSWER:
            self._answer_tokens += len(span.ids)
            if self._filter is not None:
                return ended + self._noted(self._filter.feed(span.ids))
            return ended + self._answer_text(self._answer.feed(span.ids))
        self.overhead_tokens += len(span.ids)
        return ended

    def _reasoning_text(self, text: str) -> list[Delta]:
        return [ReasoningDelta(text)] if text else []

    def _answer_text(self, text: str) -> list[Delta]:
        return self._noted([AnswerDelta(text)] if text else [])

    def _noted(self, deltas: list[Delta]) -> list[Delta]:
        """Pass on what the answer gives, and remember whether it ever gave anything."""
        if not self.has_answer:
            self.has_answer = any(
                isinstance(delta, ToolCallDelta) or (isinstance(delta, AnswerDelta) and delta.text) for delta in deltas
            )
        return deltas


def anomalies(parser: AnswerParser, *, stopped: bool) -> tuple[str, ...]:
    """Name what a finished completion did against the mode format; being cut is none."""
    found = []
    if stopped and parser.unclosed:
        found.append("unclosed")
    if parser.stray_tags:
        found.append("stray_tag")
    return tuple(found)
