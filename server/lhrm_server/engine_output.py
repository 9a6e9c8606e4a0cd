"""What the engine process writes to stderr: held back while it starts, passed on once it serves."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

HELD_LINES = 400
STDERR = 2
EXCEPTION = re.compile(r"(?:^|\s)([A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit): .+)$")


class EngineOutput:
    """Reads one forked child's stderr, so that a failed start can be told in one line instead of two tracebacks."""

    def __init__(self, *, hold: bool) -> None:
        self._holding = hold
        self._held: deque[str] = deque(maxlen=HELD_LINES)
        self._reader: threading.Thread | None = None

    @contextmanager
    def of_forked_children(self) -> Iterator[None]:
        """Take over the stderr of the children forked inside the block."""
        read_end, write_end = os.pipe()
        active = True

        def in_child() -> None:
            if active:
                os.dup2(write_end, STDERR)

        os.register_at_fork(after_in_child=in_child)
        self._reader = threading.Thread(target=self._read, args=(read_end,), name="engine-stderr", daemon=True)
        try:
            self._reader.start()
            yield
        finally:
            active = False
            os.close(write_end)

    def release(self) -> None:
        """Pass on every line from now on; what was held is dropped, because the start succeeded."""
        self._holding = False
        self._held.clear()

    def cause(self) -> str | None:
        """Return the last exception that a child told of, after it has ended."""
        if self._reader is not None:
            self._reader.join(2)
        found = [match[1] for line in self._held if (match := EXCEPTION.search(line.rstrip()))]
        return found[-1] if found else None

    def _read(self, read_end: int) -> None:
        with os.fdopen(read_end, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if self._holding:
                    self._held.append(line)
                else:
                    sys.stderr.write(line)
                    sys.stderr.flush()
