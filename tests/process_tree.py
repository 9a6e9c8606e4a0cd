"""Look at process trees through /proc, for tests that must see what is left behind."""

import time
from pathlib import Path


def _stat(pid: int) -> list[str] | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The command name is in parentheses and may hold spaces.
    return text.rpartition(")")[2].split()


def children(parent: int) -> list[int]:
    """Return the ids of the living children of a process."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    stats = {pid: stat for pid in pids if (stat := _stat(pid)) is not None}
    return [pid for pid, stat in stats.items() if stat[0] != "Z" and int(stat[1]) == parent]


def descendants(parent: int) -> list[int]:
    """Return children, their children, and so on."""
    found = []
    for child in children(parent):
        found += [child, *descendants(child)]
    return found


def alive(pid: int) -> bool:
    """Tell whether a process exists and is not merely waiting to be collected."""
    stat = _stat(pid)
    return stat is not None and stat[0] != "Z"


def gone(*pids: int, within_s: float = 10.0) -> bool:
    """Wait until none of the processes is alive; tell whether that happened."""
    deadline = time.monotonic() + within_s
    while any(map(alive, pids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
