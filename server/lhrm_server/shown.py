"""Where the reasoning of one choice goes: its own fields, nowhere, or into the content with its tags."""

from __future__ import annotations

from collections.abc import Sequence

from lhrm_train.format import THINK_CLOSE, THINK_OPEN, Mode

from .accounting import ChoiceRecord, ReasoningEnding
from .control import Shown
from .deltas import AnswerDelta, Delta, ReasoningDelta

CLOSED = (ReasoningEnding.MODEL, ReasoningEnding.BUDGET)


class View:
    """Turns what was generated into what the client asked to see; the same in a stream and in a reply."""

    def __init__(self, shown: Shown, mode: Mode) -> None:
        self._shown = shown if mode is Mode.THINK else Shown.SEPARATE
        self._opened = False
        self._closed = False

    def deltas(self, deltas: Sequence[Delta]) -> Sequence[Delta]:
        """Return the deltas as they are shown."""
        if self._shown is Shown.SEPARATE:
            return deltas
        if self._shown is Shown.HIDDEN:
            return [delta for delta in deltas if not isinstance(delta, ReasoningDelta)]
        return [shown for delta in deltas for shown in self._inline(delta)]

    def finish(self, record: ChoiceRecord) -> list[Delta]:
        """Return what is still to be shown of a choice that is over."""
        if self._shown is not Shown.INLINE:
            return []
        return self._tags(close=record.reasoning_ended_by in CLOSED)

    def _inline(self, delta: Delta) -> list[Delta]:
        if isinstance(delta, ReasoningDelta):
            return [*self._tags(close=False), AnswerDelta(delta.text)]
        return [*self._tags(close=True), delta]

    def _tags(self, *, close: bool) -> list[Delta]:
        text = ("" if self._opened else THINK_OPEN) + (THINK_CLOSE if close and not self._closed else "")
        self._opened, self._closed = True, self._closed or close
        return [AnswerDelta(text)] if text else []
