"""Scoring of completions: the mode format is checked first, then the answer against the reference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lhrm_train.format import ChatTokenizer, Mode, Span, SpanSplitter


@dataclass(frozen=True)
class Judged:
    """A scored completion. Token counts exclude the opening tag, which belongs to the prompt.

    `leaked` is True when the body holds a tag or turn marker that its mode does not allow.
    """

    score: float
    answer: str
    completion_tokens: int
    reasoning_tokens: int
    answer_tokens: int
    ended: bool
    leaked: bool


def judge(tokenizer: ChatTokenizer, reference: str, mode: Mode, ids: Sequence[int]) -> Judged:
    """Score 1.0 for a well-formed completion whose answer equals `reference`, else 0.0.

    Well-formed: closed by its own tag exactly once, ended by the end of turn, no other tag in the body.
    """
    splitter = SpanSplitter(tokenizer.tags, tokenizer.turn_end_id, mode)
    spans: dict[Span, list[int]] = {span: [] for span in Span}
    for delta in [*splitter.feed(ids), *splitter.finish()]:
        spans[delta.span] += delta.ids
    tags = tokenizer.tags
    forbidden = {tags.think, tags.think_end, tags.no_think, tags.no_think_end}
    leaked = any(token in forbidden for token in spans[Span.REASONING] + spans[Span.ANSWER])
    closed = splitter.reasoning_closed if mode is Mode.THINK else splitter.answer_closed
    answer = tokenizer.decode(spans[Span.ANSWER])
    good = splitter.ended and closed and not leaked and answer == reference
    return Judged(
        score=1.0 if good else 0.0,
        answer=answer,
        completion_tokens=len(ids),
        reasoning_tokens=len(spans[Span.REASONING]),
        answer_tokens=len(spans[Span.ANSWER]),
        ended=splitter.ended,
        leaked=leaked,
    )
