"""In which order the arms came, read from the rows: whether each had the first place as often as the others."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .load import Load, load_of
from .rows import Row

NEARLY = 0.1  # share of the turns by which places may differ and still count as about equal


@dataclass(frozen=True)
class Turn:
    """One decision about the order: for a pair where the arms run at the same time, for their blocks elsewhere."""

    load: Load
    arms: tuple[str, ...]


def turns(rows: Iterable[Row]) -> list[Turn]:
    """Return the turns of the measured requests that every arm was asked in."""
    by_pair: dict[int, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.position):
        if not row.warmup:
            by_pair[row.pair].append(row)
    found: dict[tuple[int, ...], Turn] = {}
    for pair, asked in by_pair.items():
        blocks = tuple(row.block for row in asked)
        apart = len(set(blocks)) > 1
        # The pairs of one group of blocks came in one order, which was decided once.
        found[blocks if apart else (pair,)] = Turn(load_of(asked[0]), tuple(row.arm for row in asked))
    every = {arm for turn in found.values() for arm in turn.arms}
    return [turn for turn in found.values() if set(turn.arms) == every and len(every) > 1]


def is_one_order(found: Sequence[Turn]) -> bool:
    """Tell whether the arms never changed places."""
    return len({turn.arms for turn in found}) == 1


def order_sentence(found: Sequence[Turn]) -> str:
    """Return how the arms took turns; empty where nothing can be said."""
    if not found:
        return ""
    if is_one_order(found):
        return f"The order of the arms was not balanced: always {', then '.join(found[0].arms)}."
    off = _imbalance(found)
    if off > NEARLY:
        first = Counter(turn.arms[0] for turn in found)
        shares = ", ".join(f"{arm} {first[arm]}" for arm in sorted(found[0].arms))
        return f"The order of the arms changed, but was not balanced: of {len(found)} turns began with {shares}."
    often = "about as often" if off else "as often"
    loads = {turn.load for turn in found}
    apart = any(is_one_order([turn for turn in found if turn.load == load]) for load in loads)
    together = " over all loads together, but not at each" if apart else ""
    return f"The order of the arms was balanced{together}: each came in each place {often}."


def _imbalance(found: Sequence[Turn]) -> float:
    """Return by which share of the turns some arm is most above or below its part of some place."""
    arms = found[0].arms
    counts = Counter((place, arm) for turn in found for place, arm in enumerate(turn.arms))
    part = len(found) / len(arms)
    return max(abs(counts[place, arm] - part) for place in range(len(arms)) for arm in arms) / len(found)
