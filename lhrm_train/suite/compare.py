"""The largest or smallest of a list of digits, and even or odd."""

from __future__ import annotations

import random

from lhrm_train.suite.base import Draw, Kind, number

EXTREME_PHRASES = ("Which is the {} of {}?", "What is the {} of {}?")
PARITY_PHRASES = ("Is {} even or odd?", "Is the number {} odd or even?")


def _extreme(rng: random.Random, level: int) -> Draw:
    values = [rng.randrange(10) for _ in range(2 + level)]
    which = rng.choice(("largest", "smallest"))
    best, steps = values[0], []
    for value in values[1:]:
        kept = max(best, value) if which == "largest" else min(best, value)
        steps.append(f"{best},{value}:{kept}")
        best = kept
    listed = rng.choice((", ", ",")).join(map(str, values))
    question = rng.choice(EXTREME_PHRASES).format(which, listed)
    return Draw(f"extreme {which} {values}", question, str(best), ";".join(steps))


def _parity(rng: random.Random, level: int) -> Draw:
    value = number(rng, level + 1)
    answer = "odd" if value % 2 else "even"
    trace = f"The number {value} ends in {value % 10}. The digit {value % 10} is {answer}, so {value} is {answer}."
    return Draw(f"parity {value}", rng.choice(PARITY_PHRASES).format(value), answer, trace)


EXTREME = Kind("extreme", _extreme, levels=(1, 2, 3, 4, 5))
PARITY = Kind("parity", _parity, levels=(1, 2, 3, 4))
