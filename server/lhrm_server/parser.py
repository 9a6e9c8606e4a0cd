"""From generated ids to reasoning and answer text, the same for every chunking."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lhrm_train.format import ChatTokenizer, FormatError, Mode, Span, SpanDelta, SpanSplitter

from .engine import EngineError


@dataclass(frozen=True)
class ReasoningDelta:
    """Text between the think tags."""

    text: str


@dataclass(frozen=True)
class AnswerDelta:
    """Text of the answer."""

    text: str


TextDelta = ReasoningDelta | AnswerDelta


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

    Bytes of an incomplete character are held back until the character is whole or its span ends.
    """

    def __init__(self, tokenizer: ChatTokenizer, mode: Mode) -> None:
        self._splitter = SpanSplitter(tokenizer.tags, tokenizer.turn_end_id, mode)
        self._reasoning = _SpanText(tokenizer)
        self._answer = _SpanText(tokenizer)
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
        return self._answer.tokens

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

    def feed(self, ids: Iterable[int]) -> list[TextDelta]:
        """Return the text that `ids` complete. Raises EngineError when ids follow the end of turn."""
        ids = tuple(ids)
        self.stray_tags += sum(token in self._openers for token in ids)
        try:
            spans = self._splitter.feed(ids)
        except FormatError as exc:
            raise EngineError(str(exc)) from exc
        return [delta for span in spans for delta in self._texts(span)]

    def finish(self) -> list[TextDelta]:
        """Release what was held: generation is over."""
        deltas = [delta for span in self._splitter.finish() for delta in self._texts(span)]
        return deltas + self._reasoning_text(self._reasoning.finish()) + self._answer_text(self._answer.finish())

    def _texts(self, span: SpanDelta) -> list[TextDelta]:
        if span.span is Span.REASONING:
            return self._reasoning_text(self._reasoning.feed(span.ids))
        # Overhead and answer both follow the reasoning, so that nothing can complete its last character.
        ended = self._reasoning_text(self._reasoning.finish())
        if span.span is Span.ANSWER:
            return ended + self._answer_text(self._answer.feed(span.ids))
        self.overhead_tokens += len(span.ids)
        return ended

    def _reasoning_text(self, text: str) -> list[TextDelta]:
        return [ReasoningDelta(text)] if text else []

    def _answer_text(self, text: str) -> list[TextDelta]:
        self.has_answer = self.has_answer or bool(text)
        return [AnswerDelta(text)] if text else []


def anomalies(parser: AnswerParser, *, stopped: bool) -> tuple[str, ...]:
    """Name what a finished completion did against the mode format; being cut by length is none."""
    found = []
    if stopped and parser.unclosed:
        found.append("unclosed")
    if parser.stray_tags:
        found.append("stray_tag")
    return tuple(found)
