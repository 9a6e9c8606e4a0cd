"""Tracking a ball under swapped cups, and word problems about gaining and losing things."""

from __future__ import annotations

import random

from lhrm_train.suite.base import Draw, Kind

CUPS = "ABCDE"
CUP_PHRASES = (
    "The ball is in cup {}. Swap {}. Where is the ball?",
    "A ball is under cup {}. Swap {}. Which cup has the ball?",
)
CUP_STEPS = {1: 1, 2: 3, 3: 5, 4: 7, 5: 9}
NAMES = ("Tom", "Ann", "Bob", "Eva")
THINGS = ("apples", "coins", "books", "pens")
GAINS = ("buys", "finds", "gets")
LOSSES = ("sells", "loses", "gives away")
STORY_PHRASES = ("How many {} are left?", "How many {} now?")


def _cups(rng: random.Random, level: int) -> Draw:
    cup = start = rng.choice(CUPS)
    swaps, steps = [], []
    for _ in range(CUP_STEPS[level]):
        # Three swaps in four move the ball, so that guessing the starting cup does not pay.
        if rng.random() < 0.75:
            pair = [cup, rng.choice(CUPS.replace(cup, ""))]
            rng.shuffle(pair)
        else:
            pair = rng.sample(CUPS.replace(cup, ""), 2)
        a, b = pair
        after = b if cup == a else a if cup == b else cup
        swaps.append(f"{a} and {b}")
        steps.append(f"{a}{b}:{cup}>{after}")
        cup = after
    question = rng.choice(CUP_PHRASES).format(start, ", ".join(swaps))
    return Draw(f"cups {start} {swaps}", question, cup, ",".join(steps))


def _story(rng: random.Random, level: int) -> Draw:
    top = 10 if level == 1 else 100
    value = start = rng.randrange(1, 10) if level == 1 else rng.randrange(10, 90)
    name, thing = rng.choice(NAMES), rng.choice(THINGS)
    sentences, steps = [f"{name} has {start} {thing}."], []
    for _ in range(level):
        amount = rng.randrange(1, 10)
        gains = value - amount < 0 or (value + amount < top and rng.random() < 0.5)
        result = value + amount if gains else value - amount
        sentences.append(f"{name} {rng.choice(GAINS if gains else LOSSES)} {amount}.")
        steps.append(f"{value}{'+' if gains else '-'}{amount}={result}")
        value = result
    question = " ".join([*sentences, rng.choice(STORY_PHRASES).format(thing)])
    return Draw(f"story {name} {thing} {start} {steps}", question, str(value), ",".join(steps))


CUPS_KIND = Kind("cups", _cups, levels=(1, 2, 3, 4, 5), closed_levels=(1,))
STORY = Kind("story", _story, levels=(1, 2, 3, 4, 5), closed_levels=(1,))
