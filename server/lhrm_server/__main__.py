"""The ``lhrm-serve`` command: says what to install where the server extra is missing, else hands over to the server."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

SERVER_EXTRA = ("fastapi", "uvicorn", "prometheus_client", "tokenizers")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    missing = [name for name in SERVER_EXTRA if find_spec(name) is None]
    if missing:
        print(
            f"lhrm-serve: {', '.join(missing)} not installed; install with: pip install 'lhrm[server]'", file=sys.stderr
        )
        return 1
    from .cli import parse_arguments
    from .serve import run

    return run(parse_arguments(arguments))


if __name__ == "__main__":
    sys.exit(main())
