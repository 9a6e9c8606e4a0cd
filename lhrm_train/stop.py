"""Turn Ctrl-C and SIGTERM into a question that a training loop asks between two steps."""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any


class InterruptedRunError(Exception):
    """The run was asked to stop and has saved its state; call it again to go on."""


class StopSignals:
    """Within the block the first SIGINT or SIGTERM sets `requested`; a second one acts as usual.

    Outside the main thread, where Python delivers no signals, the block changes nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        print("stopping after this step; the next signal stops at once and loses it", file=sys.stderr, flush=True)
        self._restore()

    def _restore(self) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())
