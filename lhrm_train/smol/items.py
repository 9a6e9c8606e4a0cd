"""Questions of all kinds by split: drawn with a seed, each verified, none twice."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from lhrm_train.smol.questions import gym, lists, logic, measures, numbers, stories, tracking
from lhrm_train.smol.questions.base import KNOWN_LEVEL, LEVELS, Draw, Kind
from lhrm_train.smol.verify import verify
from lhrm_train.suite.mix import SPLITS, split_of

KINDS: Mapping[str, Kind] = MappingProxyType(
    {kind.name: kind for module in (stories, numbers, measures, lists, logic, tracking, gym) for kind in module.KINDS}
)
# Draws in a row that gave nothing new; a kind and level whose split is that small counts as used up.
MOST_REPEATS = 400


class ItemError(ValueError):
    """Questions that cannot be drawn as asked."""


@dataclass(frozen=True)
class Item:
    """A verified question with the kind and level it was drawn for."""

    kind: str
    level: int
    draw: Draw


def items(seed: int, split: str, count: int, levels: Sequence[float]) -> list[Item]:
    """Return `count` items of `split`, no question twice, the kinds evenly and the levels by their weights.

    The splits share no content; of `KNOWN_LEVEL`, whose content must have been seen, they share no text of a question.
    A kind and level whose questions are used up is left out from then on. Raises ItemError for an unknown split,
    for weights that are not one per level, and where all are used up before there are `count`.
    """
    if split not in SPLITS:
        raise ItemError(f"split = {split!r}: one of {', '.join(SPLITS)}")
    if len(levels) != len(LEVELS):
        raise ItemError(f"levels = {tuple(levels)}: one weight for each of {', '.join(map(str, LEVELS))}")
    return list(_items(random.Random(f"smol-{seed}-{split}"), split, count, levels))


def _items(rng: random.Random, split: str, count: int, levels: Sequence[float]) -> Iterator[Item]:
    weights = [(level, weight) for level, weight in zip(LEVELS, levels, strict=True) if weight > 0]
    cells = [(kind, level, weight) for kind in KINDS.values() for level, weight in weights]
    seen: set[str] = set()
    made = 0
    while made < count:
        if not cells:
            raise ItemError(f"the split {split!r} has {made} questions at these levels, not {count}")
        cell = rng.choices(cells, [weight for _, _, weight in cells])[0]
        draw = _new(rng, cell[0], cell[1], split, seen)
        if draw is None:
            cells.remove(cell)
            continue
        verify(draw)
        made += 1
        yield Item(cell[0].name, cell[1], draw)


def _new(rng: random.Random, kind: Kind, level: int, split: str, seen: set[str]) -> Draw | None:
    """Return a question of `split` that is not in `seen`, and note it there; None where none was found."""
    for _ in range(MOST_REPEATS):
        draw = kind.draw(rng, level)
        content = draw.question if level == KNOWN_LEVEL else draw.key
        if split_of(content) == split and draw.question not in seen:
            seen.add(draw.question)
            return draw
    return None
