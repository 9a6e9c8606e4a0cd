"""Files of JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_json_lines(path: Path) -> list[Any]:
    """Return the value of every line. Raises OSError, and ValueError for a line that is no JSON.

    Only line feeds end a line: `str.splitlines` also splits at separators that JSON leaves in its strings.
    """
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
