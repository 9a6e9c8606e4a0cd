"""Tracking a ball under swapped cups, and word problems about gaining and losing things."""

from __future__ import annotations

import random
from itertools import combinations

from lhrm_train.suite.base import ALPHABET, Draw, Kind

CUPS = "ABCDE"
CUP_PHRASES = (
    "The ball is in cup {}. Swap {}. Where is the ball?",
    "A ball is under cup {}. Swap {}. Which cup has the ball?",
)
# With one or two swaps the ball is in one of the last two cups named, which a guess finds half the time.
CUP_STEPS = {1: (3, 4), 2: (5,), 3: (6,), 4: (7, 8), 5: (9,)}
NAMES = ("Tom", "Ann", "Bob", "Eva")
THINGS = ("apples", "coins", "books", "pens")
GAINS = ("buys", "finds", "gets")
LOSSES = ("sells", "loses", "gives away")
STORY_PHRASES = ("How many {} are left?", "How many {} now?")


def _swaps(rng: random.Random, cup: str, count: int) -> list[tuple[str, str, str, str]]:
    """Draw swaps as (left, right, cup before, cup after); two cups are swapped once at most."""
    out = []
    for pair in rng.sample(list(combinations(CUPS, 2)), count):
        a, b = rng.sample(pair, 2)
        after = b if cup == a else a if cup == b else cup
        out.append((a, b, cup, after))
        cup = after
    return out


def _cups(rng: random.Random, level: int) -> Draw:
    start, count = rng.choice(CUPS), rng.choice(CUP_STEPS[level])
    # A ball that moves once could be found without following the swaps, and so could one that always
    # moves with the last swap.
    last = rng.randrange(max(1, count - 4), count)
    while True:
        swaps = _swaps(rng, start, count)
        moves = [place for place, (_, _, before, after) in enumerate(swaps) if before != after]
        if len(moves) > 1 and moves[-1] == last:
            break
    named = [f"{a} and {b}" for a, b, _, _ in swaps]
    trace = ",".join(f"{a}{b}:{before}>{after}" for a, b, before, after in swaps)
    question = rng.choice(CUP_PHRASES).format(start, ", ".join(named))
    return Draw(f"cups {start} {named}", question, swaps[-1][3], trace)


def _story(rng: random.Random, level: int) -> Draw:
    top = 10 if level == 1 else 100
    value = start = rng.randrange(1, 10) if level == 1 else rng.randrange(10, 90)
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    sentences, named, steps = [f"{name} has {start} {thing}."], [], []
    # No amount occurs twice, so that each points to one sentence.
    for letter, amount in zip(ALPHABET, rng.sample(range(1, 10), level), strict=False):
        gains = value - amount < 0 or (value + amount < top and rng.random() < 0.5)
        result = value + amount if gains else value - amount
        sign = "+" if gains else "-"
        sentences.append(f"{name} {rng.choice(GAINS if gains else LOSSES)} {amount}.")
        named.append(f"{letter}{sign}{amount}")
        steps.append(f"{letter}{value}{sign}{amount}={result}")
        value = result
    question = " ".join([*sentences, rng.choice(STORY_PHRASES).format(thing)])
    return Draw(f"story {name} {thing} {start} {steps}", question, str(value), f"{''.join(named)};{','.join(steps)}")


CUPS_KIND = Kind("cups", _cups, levels=(1, 2, 3, 4, 5))
STORY = Kind("story", _story, levels=(1, 2, 3, 4, 5), closed_levels=(1,))
