"""What one engine event adds to a completion: reasoning text, answer text with its log-probabilities, tool calls."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TokenLogprob:
    """One answer token as bytes, its raw log-probability, and the most likely tokens there, best first."""

    data: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...]


@dataclass(frozen=True)
class ReasoningDelta:
    """Text between the think tags."""

    text: str


@dataclass(frozen=True)
class AnswerDelta:
    """Text of the answer; the text may be empty where log-probabilities follow alone."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class ToolCallDelta:
    """A call of the answer, counted from 0 in `index`, or more of its arguments (then without id and name)."""

    index: int
    call_id: str | None
    name: str | None
    arguments: str


Delta = ReasoningDelta | AnswerDelta | ToolCallDelta
