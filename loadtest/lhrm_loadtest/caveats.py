"""What a reader must know before any figure of a run: what is missing, was made again or came from somewhere else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from .order import is_one_order, turns
from .plan import planned_requests
from .rows import Row
from .run_info import RunInfo, Servers
from .summary import Summary


def caveats(rows: Sequence[Row], run: RunInfo | None, summary: Summary, remade: int) -> list[str]:
    """Return the warnings of a run; `remade` of its requests were made again in a later session."""
    found = [] if run is None else [*_missing(rows, run, summary), *_servers(run)]
    if remade:
        what = "1 request was" if remade == 1 else f"{remade} requests were"
        found.append(f"{what} made again in a later session (--retry-errors); only the last rows count.")
    found += _models(rows)
    order = turns(rows)
    if order and is_one_order(order):
        arms = ", then ".join(order[0].arms)
        found.append(
            f"The order was not balanced: always {arms}, so what changed meanwhile, a warmer cache or a busier "
            "machine, shows as a difference between them; --repeats 2 balances two arms."
        )
    return found


def _missing(rows: Sequence[Row], run: RunInfo, summary: Summary) -> Iterator[str]:
    planned = planned_requests(run.settings.design, run.prompts)
    if len(rows) < planned:
        yield f"The run is partial: {len(rows)} of {planned} planned requests were made."
    unasked = [arm.name for arm in run.settings.arms if arm.name not in summary.arms]
    if unasked:
        yield f"No request was measured of {', '.join(unasked)}."
    if summary.baseline in unasked:
        yield f"The baseline {summary.baseline} has no rows yet, so there are no differences from it."


def _servers(run: RunInfo) -> Iterator[str]:
    # By what they tell of themselves: a server that was started anew may have another port, and need not answer.
    met = {_told(servers): json.dumps(servers, sort_keys=True) for servers in (*run.earlier_servers, run.servers)}
    met.pop((), None)
    if len(met) > 1:
        yield f"The sessions met different servers: {'; '.join(met.values())}."


def _told(servers: Servers) -> tuple[str, ...]:
    return tuple(sorted({json.dumps(answer, sort_keys=True) for answer in servers.values() if answer}))


def _models(rows: Sequence[Row]) -> Iterator[str]:
    models: dict[str, dict[str, None]] = {}
    for row in rows:
        models.setdefault(row.arm, {})[row.model] = None
    for arm, names in models.items():
        if len(names) > 1:
            yield f"The rows of {arm} are of different models: {', '.join(names)}."
