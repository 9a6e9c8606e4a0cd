"""How glibc's malloc is set for tensors on a CPU; it reads its settings when a process starts."""

from __future__ import annotations

import os
import sys

VARIABLE = "GLIBC_TUNABLES"
# By default freed tensors go back to the kernel, and page faults take most of a run.
KEEP_ALL = "glibc.malloc.trim_threshold=8589934592:glibc.malloc.mmap_max=0"
# Scores over a large vocabulary have another size in every batch; if they are kept, fragments of them fill the memory
# in half an hour. Those above 32 MiB, the highest threshold glibc takes, go back.
KEEP_SMALL = "glibc.malloc.trim_threshold=8589934592:glibc.malloc.mmap_threshold=33554432"


def set_allocator(module: str, *, large_vocabulary: bool) -> None:
    """Start ``python -m module`` anew with the settings, on Linux where none are given."""
    if sys.platform == "linux" and VARIABLE not in os.environ:
        os.environ[VARIABLE] = KEEP_SMALL if large_vocabulary else KEEP_ALL
        os.execv(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]])
