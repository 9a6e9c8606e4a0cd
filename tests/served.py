"""The server as a process of its own, started by a command."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from conftest import ROOT
from process_tree import alive, children, descendants

START_S = 150


class Served:
    """A server process in its own session, with its output in files."""

    def __init__(self, command: list[str], folder: Path, **environment: str) -> None:
        self.out, self.err = folder / "out", folder / "err"
        with self.out.open("w") as out, self.err.open("w") as err:
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdout=out, stderr=err, start_new_session=True, env={**os.environ, **environment}
            )

    @property
    def output(self) -> str:
        return self.out.read_text()

    @property
    def errors(self) -> str:
        return self.err.read_text()

    def ready(self) -> str:
        """Wait for the ready line; return the URL in it."""
        assert self.wait_for(lambda: "\ntry: curl " in self.output, START_S), self.output + self.errors
        found = re.search(r"lhrm-serve: ready on (http://\S+)", self.output)
        assert found
        return found[1]

    def wait_for(self, true: Callable[[], bool], seconds: float) -> bool:
        """Wait until a condition holds; give up early when the process has ended."""
        deadline = time.monotonic() + seconds
        while not true():
            if self.process.poll() is not None or time.monotonic() > deadline:
                return true()
            time.sleep(0.1)
        return True

    def gateway(self) -> int:
        """Return the process id of the gateway, below make where make started it."""
        for pid in (self.process.pid, *descendants(self.process.pid)):
            if "lhrm_server" in Path(f"/proc/{pid}/cmdline").read_text() and "make" not in os.readlink(
                f"/proc/{pid}/exe"
            ):
                return pid
        raise AssertionError("no gateway process")

    def engine(self) -> int:
        """Return the process id of the engine."""
        (engine,) = children(self.gateway())
        return engine

    def end(self) -> None:
        """Kill whatever is left of the session."""
        for pid in (*descendants(self.process.pid), self.process.pid):
            if alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)
