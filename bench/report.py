"""From raw rows to ratios: every figure of one repeat against bare vLLM in the same repeat, then the median."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

Row = dict[str, object]
Key = tuple[int, str, bool]
FIGURES = ("tokens/s", "requests/s", "first token", "inter-token", "CPU/request")


def figures(row: Row) -> dict[str, float | None]:
    """Return the compared figures of one row."""
    seconds = _number(row, "seconds") or 1.0
    return {
        "tokens/s": (_number(row, "tokens") or 0.0) / seconds,
        "requests/s": (_number(row, "requests") or 0.0) / seconds,
        "first token": _number(row, "first_token_ms"),
        "inter-token": _number(row, "inter_token_ms"),
        "CPU/request": _number(row, "cpu_ms_per_request"),
    }


def report(path: Path) -> str:
    """Return the tables and the line of key figures."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    table: dict[Key, dict[str, dict[int, Row]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        cell = row["cell"]
        table[cell["streams"], cell["mode"], cell["stream"]][row["server"]][row["repeat"]] = row
    repeats = len({row["repeat"] for row in rows})
    lines = [
        f"Ratios to bare `vllm serve`, median of {repeats} interleaved repeats [lowest, highest]. "
        "Above 1 is better for the first two, below 1 for the others.",
        "",
        "| server | streams | mode | streamed | " + " | ".join(FIGURES) + " |",
        "|---" * (4 + len(FIGURES)) + "|",
    ]
    for name in ("embedded", "remote"):
        for (streams, mode, stream), by_server in sorted(table.items()):
            cells = [_cell(ratios(by_server, name, figure)) for figure in FIGURES]
            lines.append(f"| {name} | {streams} | {mode} | {'yes' if stream else 'no'} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", key_line(table)])


def ratios(by_server: dict[str, dict[int, Row]], name: str, figure: str) -> list[float]:
    """Return the ratio of each repeat that has both servers."""
    out = []
    for repeat, row in by_server.get(name, {}).items():
        if (bare := by_server.get("vllm", {}).get(repeat)) is not None:
            mine, theirs = figures(row)[figure], figures(bare)[figure]
            if mine is not None and theirs:
                out.append(mine / theirs)
    return out


def key_line(table: dict[Key, dict[str, dict[int, Row]]]) -> str:
    """Return the goals' figures as name=value pairs; nan where nothing was measured."""

    def middle(name: str, streams: int) -> float:
        values = [
            value
            for (count, mode, stream), by_server in table.items()
            if count == streams and mode != "auto" and stream
            for value in ratios(by_server, name, "tokens/s")
        ]
        return statistics.median(values) if values else float("nan")

    return (
        f"embedded_forced_64={middle('embedded', 64):.2f} embedded_forced_1={middle('embedded', 1):.2f} "
        f"remote_forced_64={middle('remote', 64):.2f} remote_forced_1={middle('remote', 1):.2f} "
        f"auto_first_token_extra_ms={auto_extra_ms(table):.1f} decode_step_ms={decode_step_ms(table):.1f}"
    )


def auto_extra_ms(table: dict[Key, dict[str, dict[int, Row]]]) -> float:
    """Return how much later auto's first token comes than a forced one's, embedded, one stream (median)."""
    auto, forced = (_first_tokens(table, modes) for modes in (("auto",), ("think", "no_think")))
    return statistics.median(auto) - statistics.median(forced) if auto and forced else float("nan")


def decode_step_ms(table: dict[Key, dict[str, dict[int, Row]]]) -> float:
    """Return the median time between two tokens, embedded, one stream."""
    rows = table.get((1, "think", True), {}).get("embedded", {}).values()
    values = [value for row in rows if (value := _number(row, "inter_token_ms")) is not None]
    return statistics.median(values) if values else float("nan")


def _first_tokens(table: dict[Key, dict[str, dict[int, Row]]], modes: Sequence[str]) -> list[float]:
    rows = [row for mode in modes for row in table.get((1, mode, True), {}).get("embedded", {}).values()]
    return [value for row in rows if (value := _number(row, "first_token_ms")) is not None]


def _number(row: Row, name: str) -> float | None:
    value = row[name]
    return float(value) if isinstance(value, int | float) else None


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{statistics.median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"
