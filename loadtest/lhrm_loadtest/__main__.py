"""The ``lhrm-loadtest`` command; without its extra it says what to install."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec

_EXTRA_MODULES = ("rich", "matplotlib", "aiohttp", "numpy")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    missing = [name for name in _EXTRA_MODULES if find_spec(name) is None]
    if missing:
        print(f"lhrm-loadtest needs {', '.join(missing)}: pip install 'lhrm[loadtest]'", file=sys.stderr)
        return 1
    from .command import execute

    return execute(sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    sys.exit(main())
