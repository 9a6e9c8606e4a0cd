"""Read lines from a terminal, with editing and a history where the platform has readline."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Self

_HISTORY_LINES = 1000


def default_history() -> Path | None:
    """Return where the lines are kept; None where the user has no home."""
    state = os.environ.get("XDG_STATE_HOME")
    try:
        return (Path(state) if state else Path.home() / ".local" / "state") / "lhrm" / "history"
    except RuntimeError:
        return None


class LineInput:
    """Lines from standard input; the history is read on entry and written on exit, None keeps none."""

    def __init__(self, history: Path | None) -> None:
        self._history = history
        self._readline: ModuleType | None = None

    def read(self, prompt: str) -> str:
        """Return a line. Raises EOFError at the end of the input and KeyboardInterrupt on Ctrl-C."""
        if sys.stdout.isatty():
            return input(prompt)
        # The answers go elsewhere; the prompt must not.
        print(prompt, end="", file=sys.stderr, flush=True)
        return input()

    def __enter__(self) -> Self:
        try:
            # Its import alone makes input() edit lines.
            import readline
        except ImportError:
            return self
        self._readline = readline
        readline.set_history_length(_HISTORY_LINES)
        if self._history is not None:
            with suppress(OSError):
                readline.read_history_file(self._history)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._readline is None or self._history is None:
            return
        # A history that cannot be kept is no reason to fail at the end of a conversation.
        with suppress(OSError):
            self._history.parent.mkdir(parents=True, exist_ok=True)
            self._readline.write_history_file(self._history)
