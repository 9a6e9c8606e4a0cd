"""One judge as a process: run to its end, with the processor time of it and of every process below it."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
from lhrm_loadtest.errors import LoadTestError

from bench.servers import ending_with_parent

LOG_NAME = "log.txt"
# A look at all processes takes milliseconds of the judge's own processor.
EVERY_S = 0.5


@dataclass(frozen=True)
class Usage:
    """Processor seconds that a judge had used at the Unix times `at_s`, and in all."""

    at_s: Sequence[float]
    cpu_s: Sequence[float]
    total_s: float

    def share(self, began_s: float, ended_s: float) -> float | None:
        """Return the share of one processor between two Unix times, None where no time is between them."""
        if ended_s <= began_s:
            return None
        began, ended = np.interp([began_s, ended_s], self.at_s, self.cpu_s)
        return float(ended - began) / (ended_s - began_s)


def run_watched(
    name: str, command: Sequence[str], folder: Path, environment: Mapping[str, str], limit_s: float
) -> Usage:
    """Run the `command` of a judge in `folder`, its output in a log there; leave no process of it behind.

    Raises LoadTestError when it cannot be started, fails, or does not end within `limit_s` seconds.
    """
    log = folder / LOG_NAME
    with log.open("wb") as out:
        try:
            started = subprocess.Popen(
                command,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=ending_with_parent(),
            )
        except OSError as exc:
            raise LoadTestError(f"{name}: {command[0]} cannot be started: {exc.strerror}") from exc
        usage = _watch(started, limit_s)
    if usage is None:
        raise LoadTestError(f"{name} did not end in {limit_s:.0f} s; see {log}")
    if started.returncode:
        raise LoadTestError(f"{name} ended with {started.returncode}: {last_line(log)}; see {log}")
    return usage


def last_line(log: Path) -> str:
    """Return the last line of a log that says something."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "no output")


def _watch(started: subprocess.Popen[bytes], limit_s: float) -> Usage | None:
    """Return what was used when the process has ended; None when it was stopped at the limit."""
    used = {psutil.Process(started.pid): 0.0}
    (root,) = used
    at_s: list[float] = []
    cpu_s: list[float] = []
    deadline = time.monotonic() + limit_s
    try:
        while time.monotonic() < deadline:
            _note(root, used)
            at_s.append(time.time())
            cpu_s.append(sum(used.values()))
            ended, status, own = os.wait4(started.pid, os.WNOHANG)
            if ended:
                started.returncode = os.waitstatus_to_exitcode(status)
                # Processes that were killed are in no parent's account, those that were short-lived in no look.
                return Usage(at_s, cpu_s, max(cpu_s[-1], own.ru_utime + own.ru_stime))
            time.sleep(EVERY_S)
        return None
    finally:
        _kill(used)
        if started.returncode is None:
            started.wait()


def _note(root: psutil.Process, used: dict[psutil.Process, float]) -> None:
    """Bring up to date what the processes have used; one that is gone keeps its last value."""
    with suppress(psutil.Error):
        for one in (root, *root.children(recursive=True)):
            with suppress(psutil.Error):
                times = one.cpu_times()
                used[one] = times.user + times.system


def _kill(processes: Iterable[psutil.Process]) -> None:
    for one in processes:
        with suppress(psutil.Error):
            one.kill()
