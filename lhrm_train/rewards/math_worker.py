"""The process in which scorer `math` compares: an answer that takes too long ends it, and it alone.

Reads lines ``[reference, answer]`` of JSON from standard input and writes one line each: ``true`` or ``false``, or
null where the reference holds nothing to compare with. Runs as a script; needs math_verify.
"""

from __future__ import annotations

import json
import logging
import re
import resource
import signal
import sys
from contextlib import suppress
from typing import Any

CPU_SECONDS = 5.0
MEMORY_BYTES = 4 << 30

_DELIMITED = re.compile(r"\$|\\\(|\\\[|\\boxed")
_COMMAND = re.compile(r"\\(?:text|mathrm|mathbf|operatorname|begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+")


def as_formula(text: str) -> str:
    """Put dollars around a text that is nothing but a formula, for math_verify reads LaTeX between them only.

    Without this ``x+2`` would be read as nothing and ``2*x`` as 2. A run of letters makes a text prose.
    """
    text = text.strip().removesuffix(".")
    if not text or "\n" in text or _DELIMITED.search(text) or re.search(r"[^\W\d_]{2}", _COMMAND.sub("", text)):
        return text
    return f"${text.replace('**', '^')}$"


def equal(reference: str, answer: str) -> bool | None:
    """Tell whether the two are mathematically equal; None when nothing can be read from the reference."""
    from math_verify import parse, verify

    def read(text: str) -> list[Any]:
        found: list[Any] = parse(as_formula(text), parsing_timeout=None) or parse(text, parsing_timeout=None)
        return found

    gold = read(reference)
    return bool(verify(gold, read(answer), timeout_seconds=None)) if gold else None


def main() -> None:
    """Answer requests until standard input ends. A request above `CPU_SECONDS` ends the process by SIGPROF."""
    logging.disable(logging.CRITICAL)
    replies, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no reply
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    with suppress(ValueError, OSError):  # not every system limits address space
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    import math_verify  # noqa: F401  # loading it is not on the first request's account

    for line in sys.stdin:
        # CPU time, so that a busy machine is not taken for a hard answer.
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        verdict = equal(*json.loads(line))
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(verdict), file=replies, flush=True)


if __name__ == "__main__":
    main()
