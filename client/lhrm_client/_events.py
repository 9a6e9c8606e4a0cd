"""The events of a streamed answer, in the order they come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from ._types import ChatResult, RunMode, Usage


@dataclass(frozen=True)
class ModeChosen:
    """The first event: which mode runs, who chose it, and P(think) with its threshold where the model was asked."""

    mode: RunMode
    source: str
    p_think: float | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class ReasoningDelta:
    """A piece of the reasoning of the choice with that index."""

    text: str
    choice: int = 0


@dataclass(frozen=True)
class AnswerDelta:
    """A piece of the answer of the choice with that index."""

    text: str
    choice: int = 0


@dataclass(frozen=True)
class ToolCallDelta:
    """A piece of the arguments of call number `index`; `id` and `name` come with the first piece of a call.

    The complete calls are in the result.
    """

    index: int
    arguments: str
    id: str | None = None
    name: str | None = None
    choice: int = 0


@dataclass(frozen=True)
class UsageReport:
    """The token counts of the whole answer, all choices together."""

    usage: Usage


@dataclass(frozen=True)
class Finished:
    """The last event of a stream."""

    result: ChatResult


ChatEvent: TypeAlias = ModeChosen | ReasoningDelta | AnswerDelta | ToolCallDelta | UsageReport | Finished
