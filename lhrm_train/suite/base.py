"""The item a question generator returns, and the table row that describes a kind of question."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Draw:
    """One drawn question before it is placed in a conversation.

    `key` names the content apart from its phrasing, so that two phrasings of one sum share a split.
    `trace` is the scratchpad of a think sample; its last step yields `answer`. HFT answers a `think_only` question in
    that mode alone: directly it would come out right too rarely to be easy and too often to be hard.
    """

    key: str
    question: str
    answer: str
    trace: str
    think_only: bool = False


ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

Generator = Callable[[random.Random, int], Draw]


@dataclass(frozen=True)
class Kind:
    """A kind of question: its levels, and those whose questions can all be listed (closed sets)."""

    name: str
    draw: Generator
    levels: tuple[int, ...]
    closed_levels: tuple[int, ...] = ()


def number(rng: random.Random, digits: int) -> int:
    """Draw an integer of exactly `digits` digits; 0 is a one-digit number."""
    return rng.randrange(0 if digits == 1 else 10 ** (digits - 1), 10**digits)


def letters(rng: random.Random, count: int) -> str:
    """Draw `count` capital letters."""
    return "".join(rng.choice(ALPHABET) for _ in range(count))
