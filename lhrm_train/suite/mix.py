"""The fixed mix of questions, their conversation contexts and their train, validation and test splits."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lhrm_train.format import Message, Mode
from lhrm_train.problems import Demonstration, Problem
from lhrm_train.suite import arithmetic, compare, facts, smalltalk, stories, strings
from lhrm_train.suite.base import Draw, Kind

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        smalltalk.KIND,
        facts.KIND,
        strings.REVERSE,
        strings.LETTER,
        strings.COUNT,
        compare.EXTREME,
        compare.PARITY,
        arithmetic.ADD,
        arithmetic.ADD_DIGIT,
        arithmetic.MULTIPLY,
        arithmetic.CHAIN,
        stories.CUPS_KIND,
        stories.STORY,
    )
}

# The workload that HGPO trains on and that every reported figure is measured on.
WORKLOAD: dict[str, float] = {
    "smalltalk": 0.03,
    "facts": 0.09,
    "reverse": 0.14,
    "letter": 0.07,
    "count": 0.06,
    "extreme": 0.09,
    "parity": 0.05,
    "add": 0.12,
    "multiply": 0.09,
    "chain": 0.09,
    "cups": 0.07,
    "story": 0.10,
}
# What HFT sees: the same kinds, with more of those that take longer to learn, and sums that the workload rarely has.
CURRICULUM: dict[str, float] = {
    "smalltalk": 0.03,
    "facts": 0.06,
    "reverse": 0.105,
    "letter": 0.055,
    "count": 0.03,
    "extreme": 0.09,
    "parity": 0.03,
    "add": 0.15,
    "add digit": 0.02,
    "multiply": 0.11,
    "chain": 0.10,
    "cups": 0.10,
    "story": 0.12,
}
# HFT also sees more of the sums to know by heart and of the levels with long traces.
CURRICULUM_LEVELS = {1: 1.3, 2: 0.8, 3: 1.0, 4: 1.2, 5: 1.5}

SYSTEM_MESSAGES = (
    "You are a helpful assistant.",
    "You are a helpful, harmless and honest assistant.",
    "You are lhrm-nano.",
    "Answer briefly.",
    "Be concise.",
    "You are a careful assistant. Give only the answer.",
)
CONTEXT_SHARE = 0.28
# HFT learns the kinds from bare questions first, and to find the question in a conversation once it can answer it.
EARLY_SHARE, EARLY_CONTEXT_SHARE, LATE_CONTEXT_SHARE = 0.45, 0.08, 0.42
# How many turns its conversations have. The longest are for people who go on talking; the workload has three at most.
CURRICULUM_TURNS = {2: 0.22, 3: 0.36, 4: 0.1, 5: 0.07, 6: 0.06, 8: 0.07, 10: 0.06, 13: 0.06}
SPLITS = ("train", "validation", "test")
# Open questions in a row that were drawn before; then the kinds asked for are as good as used up.
MOST_REPEATS = 10_000


@dataclass(frozen=True)
class Item:
    """A question in its conversation, with the reference answer and a verified trace."""

    kind: str
    level: int
    closed: bool
    key: str
    messages: tuple[Message, ...]
    answer: str
    trace: str
    context: str
    think_only: bool = False

    @property
    def question(self) -> str:
        """The last user message."""
        return self.messages[-1].content

    @property
    def problem(self) -> Problem:
        """The item without its trace."""
        return Problem(
            messages=self.messages,
            reference=self.answer,
            kind=self.kind,
            level=self.level,
            closed=self.closed,
            context=self.context,
            key=self.key,
        )

    def demonstration(self, mode: Mode) -> Demonstration:
        """Return the reference answer in `mode`."""
        return Demonstration(self.problem, mode, self.trace if mode is Mode.THINK else "", self.answer)


def split_of(key: str) -> str:
    """Assign content to a split by its hash: 80 % train, 10 % validation, 10 % test."""
    bucket = hashlib.blake2b(key.encode(), digest_size=4).digest()
    share = int.from_bytes(bucket, "big") / 2**32
    return "train" if share < 0.8 else "validation" if share < 0.9 else "test"


def _draw_in_split(rng: random.Random, kind: Kind, level: int, split: str) -> Draw:
    closed = level in kind.closed_levels
    while True:
        draw = kind.draw(rng, level)
        if closed or split_of(draw.key) == split:
            return draw


def _pick(rng: random.Random, weights: Mapping[str, float]) -> tuple[Kind, int]:
    kind = KINDS[rng.choices(list(weights), list(weights.values()))[0]]
    if weights is not CURRICULUM:
        return kind, rng.choice(kind.levels)
    return kind, rng.choices(kind.levels, [CURRICULUM_LEVELS[level] for level in kind.levels])[0]


def _style(rng: random.Random, context_share: float) -> str:
    if rng.random() >= context_share:
        return "bare"
    return rng.choices(("system", "turns", "system+turns"), (0.3, 0.35, 0.35))[0]


def _system(rng: random.Random, style: str) -> list[Message]:
    return [Message("system", rng.choice(SYSTEM_MESSAGES))] if "system" in style else []


def _context(rng: random.Random, style: str, split: str) -> list[Message]:
    messages = _system(rng, style)
    if "turns" in style:
        for _ in range(rng.choices((1, 2), (0.3, 0.7))[0]):
            kind, level = _pick(rng, WORKLOAD)
            earlier = _draw_in_split(rng, kind, level, split)
            messages += [Message("user", earlier.question), Message("assistant", earlier.answer)]
    return messages


def make_item(rng: random.Random, kind: Kind, level: int, split: str, context: list[Message], style: str) -> Item:
    """Draw one question of `kind` and place it after `context`."""
    draw = _draw_in_split(rng, kind, level, split)
    return Item(
        kind=kind.name,
        level=level,
        closed=level in kind.closed_levels,
        key=draw.key,
        messages=(*context, Message("user", draw.question)),
        answer=draw.answer,
        trace=draw.trace,
        context=style,
        think_only=draw.think_only,
    )


def curriculum_context_share(progress: float) -> float:
    """Return the share of HFT's conversations with more than a question, at `progress` in [0, 1] of its steps."""
    return EARLY_CONTEXT_SHARE if progress < EARLY_SHARE else LATE_CONTEXT_SHARE


def sample_conversation(rng: random.Random, context_share: float) -> list[Item]:
    """Draw a conversation of the curriculum, from the train split: its turns in order, each an item.

    `context_share` of them have a system message, several turns or both; the others are one bare question.
    """
    style = _style(rng, context_share)
    turns = rng.choices(list(CURRICULUM_TURNS), list(CURRICULUM_TURNS.values()))[0] if "turns" in style else 1
    messages, drawn = _system(rng, style), []
    for _ in range(turns):
        kind, level = _pick(rng, CURRICULUM)
        item = make_item(rng, kind, level, "train", messages, style)
        drawn.append(item)
        messages = [*item.messages, Message("assistant", item.answer)]
    return drawn


def sample_item(
    rng: random.Random,
    split: str,
    weights: Mapping[str, float] = WORKLOAD,
    context_share: float = CONTEXT_SHARE,
) -> Item:
    """Draw one item of `split`; `context_share` of them carry a system message, earlier turns or both."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(SPLITS)}")
    kind, level = _pick(rng, weights)
    style = _style(rng, context_share)
    return make_item(rng, kind, level, split, _context(rng, style, split), style)


def items(seed: int, split: str, weights: Mapping[str, float] = WORKLOAD) -> Iterator[Item]:
    """Yield items of `split` without end, the same for the same seed."""
    rng = random.Random(f"{seed}-{split}")
    while True:
        yield sample_item(rng, split, weights)


def fixed_items(count: int, seed: int, split: str, weights: Mapping[str, float] = WORKLOAD) -> list[Item]:
    """Return the first `count` items of `items`, each open question at most once.

    Raises ValueError when `count` is negative, or when `weights` name too few kinds for so many open questions; the
    kinds of the workload include closed ones, whose questions repeat, so there it cannot run out.
    """
    if count < 0:
        raise ValueError(f"count = {count}: not negative")
    seen: set[str] = set()
    out: list[Item] = []
    repeats = 0
    drawn = items(seed, split, weights)
    while len(out) < count:
        item = next(drawn)
        if item.closed or item.key not in seen:
            seen.add(item.key)
            out.append(item)
            repeats = 0
        elif (repeats := repeats + 1) == MOST_REPEATS:
            raise ValueError(f"the split {split!r} of {', '.join(weights)} has {len(out)} questions, not {count}")
    return out
