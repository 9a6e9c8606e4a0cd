"""How glibc's malloc is set for tensors on a CPU; it reads its settings when a process starts."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

VARIABLE = "GLIBC_TUNABLES"
# By default freed tensors go back to the kernel, and page faults take most of a run.
KEEP_ALL = "glibc.malloc.trim_threshold=8589934592:glibc.malloc.mmap_max=0"
# Scores over a large vocabulary have another size in every batch; if they are kept, fragments of them fill the memory
# in half an hour. Those above 32 MiB, the highest threshold glibc takes, go back.
KEEP_SMALL = "glibc.malloc.trim_threshold=8589934592:glibc.malloc.mmap_threshold=33554432"


LARGE_VOCABULARY = 8192  # tokens


def has_large_vocabulary(checkpoint: Path) -> bool:
    """Return whether the model in `checkpoint` knows so many tokens; also where its size cannot be read."""
    try:
        config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
        return int(config["vocab_size"]) >= LARGE_VOCABULARY
    except (OSError, ValueError, KeyError, TypeError):
        return True


def set_allocator(module: str, *, large_vocabulary: bool) -> None:
    """Start ``python -m module`` anew with the settings, on Linux where none are given."""
    if sys.platform == "linux" and VARIABLE not in os.environ:
        os.environ[VARIABLE] = KEEP_SMALL if large_vocabulary else KEEP_ALL
        os.execv(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]])
