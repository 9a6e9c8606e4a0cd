"""A program at a pseudo-terminal: what it shows is read, and keys are typed into it."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import ioctl
from struct import pack
from termios import TIOCSWINSZ

ROWS, COLUMNS = 24, 40
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """The screen's side of the pseudo-terminal; `shown` is all that came."""

    def __init__(self, master: int, process: subprocess.Popen[bytes]) -> None:
        self._master = master
        self.process = process
        self.shown = ""
        self._seen = 0

    def type(self, text: str) -> None:
        """Type a text."""
        os.write(self._master, text.encode())

    def line(self, text: str) -> None:
        """Type a line."""
        self.type(text + "\r")

    def expect(self, text: str, timeout_s: float = 30) -> str:
        """Wait until `text` comes after what was expected before; return what came up to its end."""
        deadline = time.monotonic() + timeout_s
        while text not in self.shown[self._seen :]:
            left_s = deadline - time.monotonic()
            assert left_s > 0, f"{text!r} did not come; there is {self.shown[self._seen :]!r}"
            self._read(left_s)
        begin, self._seen = self._seen, self.shown.index(text, self._seen) + len(text)
        return self.shown[begin : self._seen]

    def ended(self, timeout_s: float = 30) -> int:
        """Wait for the end of the program and return its exit status."""
        deadline = time.monotonic() + timeout_s
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it did not end; there is {self.shown[self._seen :]!r}"
            self._read(0.1)
        return self.process.returncode

    def _read(self, timeout_s: float) -> None:
        if select.select([self._master], [], [], timeout_s)[0]:
            # Linux says EIO when the last process has closed the terminal.
            with suppress(OSError):
                self.shown += os.read(self._master, 65536).decode("utf-8", "replace")


@contextmanager
def terminal(command: list[str], env: dict[str, str]) -> Iterator[Terminal]:
    """Run a program at a terminal of its own."""
    master, slave = pty.openpty()
    ioctl(slave, TIOCSWINSZ, pack("HHHH", ROWS, COLUMNS, 0, 0))
    # Keys such as Ctrl-C reach a program only through a terminal that controls its session.
    process = subprocess.Popen(
        ["setsid", "--ctty", *command], stdin=slave, stdout=slave, stderr=slave, env=env, close_fds=True
    )
    os.close(slave)
    try:
        yield Terminal(master, process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(master)


def plain(shown: str) -> str:
    """Return what was shown without escape sequences."""
    return _ESCAPE.sub("", shown).replace("\r\n", "\n")
