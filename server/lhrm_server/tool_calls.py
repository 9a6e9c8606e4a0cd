"""Tool calls in the text of an answer: Hermes blocks, a JSON list of calls, or the arguments of one function.

A reader takes the text piece by piece and gives deltas; the result does not depend on the pieces.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any, Protocol

from .answer_plan import ToolPlan
from .deltas import AnswerDelta, Delta, ToolCallDelta
from .stops import prefix_at_end

OPEN, CLOSE = "<tool_call>", "</tool_call>"
BETWEEN = " \n\r\t[,"
"""What stands in front of the elements of a JSON list."""


class ToolReader(Protocol):
    """What the three forms have in common.

    `calls` counts complete calls and `malformed` broken ones, which are given back as text; `unfinished` tells, after
    finish(), that the text ended within a call.
    """

    calls: int
    malformed: int
    unfinished: bool

    def feed(self, text: str) -> list[Delta]:
        """Take a piece of the answer."""
        ...

    def finish(self) -> list[Delta]:
        """Give back what was held: no more text comes."""
        ...


def tool_reader(plan: ToolPlan) -> ToolReader:
    """Return the reader of a plan."""
    if plan.kind == "auto":
        return HermesReader()
    if plan.kind == "required":
        return ListReader()
    if plan.name is None:
        raise ValueError("a named tool plan needs its name")
    return NamedReader(plan.name)


class HermesReader:
    """``<tool_call>{"name", "arguments"}</tool_call>`` blocks between other text.

    Blanks that touch a call go with it, but for those between text in front of it and text behind it.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.malformed = 0
        self.unfinished = False
        self._held = ""
        self._gave_text = False
        # Blanks in front of the calls just read; None where text came last.
        self._gap: str | None = None

    def feed(self, text: str) -> list[Delta]:
        """Take a piece of the answer."""
        self._held += text
        out: list[Delta] = []
        while (start := self._held.find(OPEN)) >= 0:
            end = self._block(start, out)
            if end is None:
                break
            self._held = self._held[end:]
        begun = start if start >= 0 else len(self._held) - prefix_at_end(self._held, (OPEN,))
        # Blanks wait too: a block may follow them.
        ready = self._held[:begun].rstrip()
        self._held = self._held[len(ready) :]
        return out + self._content(ready)

    def finish(self) -> list[Delta]:
        """Give back what was held: no more text comes."""
        rest, self._held = self._held, ""
        self.unfinished = self.unfinished or OPEN in rest
        return self._content(rest)

    def _block(self, start: int, out: list[Delta]) -> int | None:
        """Read the block at `start` into `out` and return its end, None while it is not complete."""
        close = start
        while (close := self._held.find(CLOSE, close)) >= 0:
            body, close = self._held[start + len(OPEN) : close], close + len(CLOSE)
            try:
                name, arguments = _call(_DECODER.decode(body), "arguments")
            except json.JSONDecodeError as exc:
                if exc.msg.startswith("Unterminated string"):
                    # This closing tag is text inside an argument.
                    continue
            except (ValueError, RecursionError):
                pass
            else:
                out += self._content(before := self._held[:start].rstrip())
                if self._gap is None:
                    self._gap = self._held[len(before) : start] if self._gave_text else ""
                out.append(ToolCallDelta(self.calls, new_call_id(), name, arguments))
                self.calls += 1
                return close
            self.malformed += 1
            out += self._content(self._held[:close])
            return close
        return None

    def _content(self, text: str) -> list[Delta]:
        if self._gap is not None:
            text = text.lstrip()
        if not text:
            return []
        text, self._gap, self._gave_text = (self._gap or "") + text, None, True
        return [AnswerDelta(text)]


class ListReader:
    """A JSON list of ``{"name", "parameters"}``; each element is one call as soon as it is complete."""

    def __init__(self) -> None:
        self.calls = 0
        self.malformed = 0
        self.unfinished = False
        self._held = ""

    def feed(self, text: str) -> list[Delta]:
        """Take a piece of the answer."""
        self._held += text
        out: list[Delta] = []
        # Only a closing brace can complete an element.
        while "}" in text and (call := self._next()) is not None:
            out.append(call)
        return out

    def finish(self) -> list[Delta]:
        """Give back what was held: no more text comes."""
        rest, self._held = self._held, ""
        if rest.strip() in ("", "]", "[]"):
            return []
        self.unfinished = True
        rest = rest.lstrip(BETWEEN)
        return [AnswerDelta(rest)] if rest else []

    def _next(self) -> Delta | None:
        begin = len(self._held) - len(self._held.lstrip(BETWEEN))
        if not self._held.startswith("{", begin):
            return None
        try:
            value, end = _DECODER.raw_decode(self._held, begin)
        except (ValueError, RecursionError):
            return None
        element, self._held = self._held[begin:end], self._held[end:]
        try:
            name, arguments = _call(value, "parameters")
        except ValueError:
            self.malformed += 1
            return AnswerDelta(element)
        self.calls += 1
        return ToolCallDelta(self.calls - 1, new_call_id(), name, arguments)


class NamedReader:
    """The arguments of one function, passed on as they come."""

    def __init__(self, name: str) -> None:
        self.calls = 0
        self.malformed = 0
        self.unfinished = False
        self._name = name

    def feed(self, text: str) -> list[Delta]:
        """Take a piece of the answer."""
        if not text:
            return []
        first, self.calls = not self.calls, 1
        return [ToolCallDelta(0, new_call_id() if first else None, self._name if first else None, text)]

    def finish(self) -> list[Delta]:
        """Give back what was held: nothing ever is."""
        return []


def new_call_id() -> str:
    """Return the id of one call."""
    return f"call_{uuid.uuid4().hex[:24]}"


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


# Models write line breaks into strings, which strict JSON forbids.
_DECODER = json.JSONDecoder(strict=False, parse_constant=_no_constant)


def _call(value: object, arguments_key: str) -> tuple[str, str]:
    """Return the name and the arguments, as JSON text, of one call. Raises ValueError on anything else."""
    if not isinstance(value, Mapping):
        raise ValueError("a call is an object")
    members: Mapping[str, Any] = value
    name, arguments = members.get("name"), members.get(arguments_key, {})
    if not isinstance(name, str) or not name or not isinstance(arguments, Mapping):
        raise ValueError("a call has a name and arguments")
    text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    # A lone surrogate could not be sent.
    f"{name}{text}".encode()
    return name, text
