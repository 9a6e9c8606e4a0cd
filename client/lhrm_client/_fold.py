"""The reasoning in a window of a few lines that folds into one line when it ends; needs rich."""

from __future__ import annotations

import time

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ._display import printable

_LINES = 8
_REFRESH_HZ = 8


class FoldedReasoning:
    """A ReasoningView for terminals: the last lines live and dimmed, then how long it took."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False, markup=False)
        self._live: Live | None = None
        self._text = ""
        self._began_s = 0.0

    def feed(self, text: str) -> None:
        """Show a piece of it in the window."""
        self._text = self._shortened(self._text + printable(text))
        if self._live is None:
            self._began_s = time.monotonic()
            self._live = Live(
                get_renderable=self._window,
                console=self._console,
                transient=True,
                refresh_per_second=_REFRESH_HZ,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()

    def end(self) -> None:
        """Fold the window."""
        if self._live is not None:
            self._live.stop()
        self._live = None
        seconds = time.monotonic() - self._began_s
        self._console.print(Text(f"▸ thought for {seconds:.1f} s, /reasoning shows it", style="dim"))
        self._text = ""

    def _window(self) -> Text:
        lines = Text(self._text, style="dim").wrap(self._console, self._console.width)
        return Text("\n").join(lines[-_LINES:])

    def _shortened(self, text: str) -> str:
        """Drop what is long out of sight, so that a refresh never wraps much; seldom, as it moves the line breaks."""
        most = 4 * _LINES * self._console.width
        if len(text) <= most:
            return text
        rest = text[-most // 2 :]
        return rest.partition("\n")[2] or rest.partition(" ")[2] or rest
