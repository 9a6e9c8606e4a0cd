"""Where tables and progress are printed; a pipe or file gets them wide, instead of at 80 columns."""

from __future__ import annotations

from rich.console import Console

PIPE_COLUMNS = 160


def console(stderr: bool = False) -> Console:
    """Return stdout or stderr as a console."""
    found = Console(stderr=stderr)
    return found if found.is_terminal else Console(stderr=stderr, width=PIPE_COLUMNS)
