"""Tie forked child processes to this one: when this process dies, however it dies, the kernel kills them."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

PR_SET_PDEATHSIG = 1


class _Leash:
    """Hooks that run around ``os.fork`` while `held`."""

    def __init__(self) -> None:
        self.held = True
        self._parent = os.getpid()
        # Loaded before the fork: a child of a process with threads should do little more than system calls.
        self._libc = ctypes.CDLL(None, use_errno=True)

    def in_child(self) -> None:
        """Ask the kernel for SIGKILL at the parent's death, and leave the terminal's process group."""
        if not self.held:
            return
        self.held = False
        self._libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != self._parent:
            os._exit(1)
        # Ctrl-C reaches the whole foreground group; the parent decides when its children stop.
        os.setpgid(0, 0)


@contextmanager
def children_die_with_this_process() -> Iterator[None]:
    """Leash every child that is forked inside the block (Linux; spawned children are not covered).

    The kernel watches the forking *thread*: call it from a thread that lives as long as the process.
    """
    leash = _Leash()
    os.register_at_fork(after_in_child=leash.in_child)
    try:
        yield
    finally:
        leash.held = False
