"""Comparing two numbers, the largest or smallest of a list of digits, and even or odd."""

from __future__ import annotations

import random

from lhrm_train.suite.base import Draw, Kind, number

COMPARE_PHRASES = {
    "larger": ("Is {} larger than {}?", "Is {} more than {}?"),
    "smaller": ("Is {} smaller than {}?", "Is {} less than {}?"),
}
EXTREME_PHRASES = ("Which is the {} of {}?", "What is the {} of {}?")
PARITY_PHRASES = ("Is {} even or odd?", "Is the number {} odd or even?")


def _order_trace(first: str, second: str) -> str:
    if len(first) != len(second):
        return f"{len(first)} digits,{len(second)} digits"
    steps = []
    for x, y in zip(first, second, strict=True):
        steps.append(f"{x}{'=' if x == y else '<' if x < y else '>'}{y}")
        if x != y:
            break
    return ",".join(steps)


def _compare(rng: random.Random, level: int) -> Draw:
    digits = level + 1
    first = number(rng, digits)
    second = number(rng, rng.randrange(1, digits) if rng.random() < 0.1 else digits)
    if first == second:
        second = first + 1 if (first + 1) < 10**digits else first - 1
    if rng.random() < 0.5:
        first, second = second, first
    which = rng.choice(("larger", "smaller"))
    answer = "yes" if (first > second) == (which == "larger") else "no"
    question = rng.choice(COMPARE_PHRASES[which]).format(first, second)
    trace = f"{first} and {second}:{_order_trace(str(first), str(second))};{which} is {answer}"
    return Draw(f"compare {min(first, second)} {max(first, second)}", question, answer, trace)


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


COMPARE = Kind("compare", _compare, levels=(1, 2, 3, 4, 5))
EXTREME = Kind("extreme", _extreme, levels=(1, 2, 3, 4, 5))
PARITY = Kind("parity", _parity, levels=(1, 2, 3, 4))
