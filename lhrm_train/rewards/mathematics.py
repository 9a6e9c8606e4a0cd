"""Scorer `math`: the answer is mathematically equal to the reference, as math_verify sees it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from typing import IO, cast

from lhrm_train.problems import Problem
from lhrm_train.rewards.base import ScoreError
from lhrm_train.rewards.math_worker import CPU_SECONDS

_WORKER = Path(__file__).with_name("math_worker.py")


class MathTimeoutError(ScoreError):
    """A comparison used up the worker's CPU time."""


class Mathematics:
    """Compares in a process of its own, which the first call starts and which lives as long as the scorer.

    Some answers keep a computer algebra system busy for ever, and math_verify's own time limit works in the
    main thread only. Calls from several threads queue.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._worker: subprocess.Popen[str] | None = None
        self._stop: weakref.finalize[..., Mathematics] | None = None

    def __call__(self, problem: Problem, answer: str) -> float:
        """Return 1 or 0.

        Raises ScoreError when nothing mathematical can be read from the reference, MathTimeoutError when the
        comparison takes too long.
        """
        with self._lock:
            try:
                verdict = json.loads(self._ask(json.dumps([problem.reference, answer])))
            except BaseException:
                self._discard()  # after Ctrl-C too: a late reply must not answer the next request
                raise
        if verdict is None:
            raise ScoreError(f"scorer 'math': nothing can be read from reference {problem.reference!r}")
        return float(verdict)

    def _ask(self, request: str) -> str:
        if self._worker is None:
            self._worker = _start()
            self._stop = weakref.finalize(self, _end, self._worker)
        stdin, stdout = cast("IO[str]", self._worker.stdin), cast("IO[str]", self._worker.stdout)
        with suppress(BrokenPipeError):  # it died since the last request; there will be no reply either
            stdin.write(request + "\n")
            stdin.flush()
        reply = stdout.readline()
        if reply:
            return reply
        code = self._worker.wait()
        if code == -signal.SIGPROF:
            raise MathTimeoutError(f"scorer 'math': more than {CPU_SECONDS} s of CPU time on {request}")
        raise ScoreError(f"scorer 'math': its worker ended with code {code} on {request}")

    def _discard(self) -> None:
        if self._stop is not None:
            self._stop()
        self._worker = self._stop = None


def _start() -> subprocess.Popen[str]:
    # -P keeps this directory off the worker's import path.
    return subprocess.Popen([sys.executable, "-P", _WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _end(worker: subprocess.Popen[str]) -> None:
    worker.kill()
    worker.wait()
    for pipe in (worker.stdin, worker.stdout):
        with suppress(BrokenPipeError):
            cast("IO[str]", pipe).close()
