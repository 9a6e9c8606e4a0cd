"""Show the events of an answer: the answer on one stream, everything about it on another."""

from __future__ import annotations

import os
import re
from typing import Protocol, TextIO

from ._events import AnswerDelta, ChatEvent, Finished, ModeChosen, ReasoningDelta
from ._types import RunMode
from ._wording import decision_note, savings_line

_RESET, _DIM = "\x1b[0m", "\x1b[2m"
_BADGES: dict[RunMode, str] = {"think": "\x1b[30;45m", "no_think": "\x1b[30;42m"}
# What could steer a terminal: control characters but for the tab and the end of a line.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Return a model's text without what could steer a terminal."""
    return _CONTROL.sub("\ufffd", text)


class Sink:
    """A text stream; a terminal gets no control characters from a model, and styles unless NO_COLOR is set."""

    def __init__(self, stream: TextIO) -> None:
        self.terminal = stream.isatty()
        self.styled = self.terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self._stream = stream

    def write(self, text: str, style: str = "") -> None:
        """Write and flush a text, in an ANSI style where the stream has styles."""
        shown = printable(text) if self.terminal else text
        self._stream.write(f"{style}{shown}{_RESET}" if style and self.styled else shown)
        self._stream.flush()

    def dim(self, text: str) -> None:
        """Write a text that stands back."""
        self.write(text, _DIM)

    def note(self, text: str) -> None:
        """Write a line about an answer."""
        self.dim(text)
        self.write("\n")


class ReasoningView(Protocol):
    """How the reasoning of one answer after another is shown."""

    def feed(self, text: str) -> None:
        """Show a piece of it."""

    def end(self) -> None:
        """It is over; leave the cursor at the beginning of a line."""


class PlainReasoning:
    """The reasoning as it comes, dimmed; it stays."""

    def __init__(self, notes: Sink) -> None:
        self._notes = notes

    def feed(self, text: str) -> None:
        """Write a piece of it."""
        self._notes.dim(text)

    def end(self) -> None:
        """End its last line."""
        self._notes.write("\n")


class Display:
    """Shows one answer after another. `reasoning_view` may be replaced between two of them."""

    def __init__(self, answers: Sink, notes: Sink) -> None:
        self._answers = answers
        self.notes = notes
        self.reasoning_view: ReasoningView = PlainReasoning(notes)
        self._open: type[ReasoningDelta] | type[AnswerDelta] | None = None

    def show(self, event: ChatEvent) -> None:
        """Show one event."""
        if isinstance(event, ModeChosen):
            self._badge(event)
        elif isinstance(event, ReasoningDelta):
            self._open = ReasoningDelta
            self.reasoning_view.feed(event.text)
        elif isinstance(event, AnswerDelta):
            self._end_reasoning()
            self._open = AnswerDelta
            self._answers.write(event.text)
        elif isinstance(event, Finished):
            self._end_reasoning()
            self._answers.write("\n")
            self._open = None
            self.notes.note(savings_line(event.result))

    def stop(self) -> None:
        """End what is open of an answer that goes no further."""
        self._end_reasoning()
        if self._open is AnswerDelta:
            self._answers.write("\n")
        self._open = None

    def _end_reasoning(self) -> None:
        if self._open is ReasoningDelta:
            self.reasoning_view.end()
            self._open = None

    def _badge(self, event: ModeChosen) -> None:
        label = f" {event.mode} " if self.notes.styled else f"[{event.mode}]"
        self.notes.write(label, _BADGES[event.mode])
        self.notes.note(f" {decision_note(event)}")
