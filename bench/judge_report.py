"""From the results of the judges to two tables and a line of key figures."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from lhrm_loadtest.values import Values, joined
from pydantic import BaseModel, ConfigDict

from bench.judge_kinds import JUDGES, Measured

Times = tuple[float, float]


class Result(BaseModel):
    """One judge once: what it reports and what it needed.

    `cpu_share` is of one processor while it asked, `cpu_s` are processor seconds in all, `server_ms` are p50 and p95
    from a request to its last token in the server itself, `command` is how the judge was called.
    """

    model_config = ConfigDict(frozen=True)

    measured: Measured
    cpu_share: float | None
    cpu_s: float
    server_ms: Times | None
    command: tuple[str, ...]


def counts_table(counts: Mapping[str, Result]) -> str:
    """Return what each judge counted, as Markdown."""
    lines = [
        "| on the nano | answered | errors | prompt tokens | completion tokens | of them reasoning |",
        "|---|---|---|---|---|---|",
    ]
    for name, result in counts.items():
        one = result.measured
        reasoned = "not told" if one.reasoning_tokens is None else str(one.reasoning_tokens)
        numbers = (one.answered, one.errors, one.prompt_tokens, one.completion_tokens, reasoned)
        lines.append(f"| {_title(name, one)} | {' | '.join(map(str, numbers))} |")
    return "\n".join(lines)


def times_table(times: Mapping[str, Sequence[Result]]) -> str:
    """Return the latencies of each judge in every repeat and what it needed, as Markdown."""
    lines = [
        "| p50, p95 in ms | first token | total | total in the server | of one processor | processor seconds in all |",
        "|---|---|---|---|---|---|",
    ]
    for name, results in times.items():
        cells = (
            _pairs(one.measured.first_token_ms for one in results),
            _pairs(one.measured.total_ms for one in results),
            _pairs(one.server_ms for one in results if one.server_ms),
            "; ".join("na" if one.cpu_share is None else f"{100 * one.cpu_share:.0f} %" for one in results),
            "; ".join(f"{one.cpu_s:.1f}" for one in results),
        )
        lines.append(f"| {_title(name, results[0].measured)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def key_line(counts: Mapping[str, Result], times: Mapping[str, Sequence[Result]]) -> str:
    """Return the figures that count as name=value pairs; of the repeats their medians."""
    values: Values = {"repeats": min(map(len, times.values())), "counts_agree": int(counts_agree(counts))}
    for name, result in counts.items():
        values[f"answered_{name}"] = result.measured.answered
        values[f"completion_tokens_{name}"] = result.measured.completion_tokens
    for name, results in times.items():
        values |= {f"{figure}_{name}": _median(results, of) for figure, of in FIGURES.items()}
    return joined(values)


FIGURES: Mapping[str, Callable[[Result], float | None]] = {
    "first_token_p50_ms": lambda one: one.measured.first_token_ms[0],
    "first_token_p95_ms": lambda one: one.measured.first_token_ms[1],
    "total_p50_ms": lambda one: one.measured.total_ms[0],
    "total_p95_ms": lambda one: one.measured.total_ms[1],
    "server_total_p95_ms": lambda one: one.server_ms[1] if one.server_ms else None,
    "cpu_share": lambda one: one.cpu_share,
    "cpu_s": lambda one: one.cpu_s,
}


def counts_agree(counts: Mapping[str, Result]) -> bool:
    """Tell whether all judges counted the same; one that does not tell a count agrees with all."""
    measured = [result.measured for result in counts.values()]
    told = {(one.answered, one.errors, one.prompt_tokens, one.completion_tokens) for one in measured}
    reasoned = {one.reasoning_tokens for one in measured} - {None}
    return len(told) == 1 and len(reasoned) <= 1


def _median(results: Sequence[Result], of: Callable[[Result], float | None]) -> float | None:
    known = [value for value in map(of, results) if value is not None]
    return statistics.median(known) if known else None


def _title(name: str, measured: Measured) -> str:
    return f"`{JUDGES[name].title}` {measured.version}"


def _pairs(times: Iterable[Times]) -> str:
    return "; ".join(f"{p50:.1f}, {p95:.1f}" for p50, p95 in times) or "na"
