"""The ``lhrm-serve`` command: says what to install where the server extra is missing, else hands over to the server."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec

SERVER_EXTRA = ("fastapi", "uvicorn", "prometheus_client", "tokenizers")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and end the process; returns only where the server extra is missing."""
    missing = [name for name in SERVER_EXTRA if find_spec(name) is None]
    if missing:
        print(
            f"lhrm-serve: {', '.join(missing)} not installed; install with: pip install 'lhrm[server]'", file=sys.stderr
        )
        return 1
    from .cli import parse_arguments
    from .serve import run

    code = run(parse_arguments(arguments))
    sys.stdout.flush()
    sys.stderr.flush()
    # Everything is closed. The interpreter would now take seconds to collect what vLLM and torch leave behind.
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
