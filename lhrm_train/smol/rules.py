"""How the numeric answer of each form follows from the numbers, in order, in the text of its question."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import date
from fractions import Fraction
from itertools import pairwise
from types import MappingProxyType

from lhrm_train.smol.equations import evaluate
from lhrm_train.smol.questions.words import CATEGORIES

Number = int | Fraction
_NUMBER = re.compile(r"\d+")
_PER = {
    frozenset(pair.split()): factor
    for pair, factor in {
        "cm m": 100,
        "m km": 1000,
        "g kg": 1000,
        "ml litres": 1000,
        "minutes hours": 60,
        "seconds minutes": 60,
        "hours days": 24,
        "days weeks": 7,
        "inches feet": 12,
        "feet yards": 3,
        "ounces pounds": 16,
        "months years": 12,
    }.items()
}
_UNIT = re.compile(
    r"\b(cm|m|km|g|kg|ml|litres|minutes|hours|seconds|days|weeks|inches|feet|yards|ounces|pounds|months|years)\b"
)
NO_LEAP_YEAR = 2023
_DATE = re.compile(r"([A-Z][a-z]+) (\d+)")
_MONTHS = "January February March April May June July August September October November December".split()
_STOCK = re.compile(
    r"(doubles the number)|(?:(buys|finds|gets|picks up|wins)|(gives away|sells|loses|drops|lends out)) (\d+)"
)


def numbers_in(text: str) -> list[int]:
    """Return the whole numbers in `text`, in order."""
    return [int(found) for found in _NUMBER.findall(text)]


def day_of(text: str) -> list[date]:
    """Return the dates such as March 5 in `text`, in a year that is no leap year."""
    return [date(NO_LEAP_YEAR, _MONTHS.index(m) + 1, int(d)) for m, d in _DATE.findall(text) if m in _MONTHS]


def _whole(value: Number) -> Number:
    return int(value) if value == int(value) else value


def _by(rule: Callable[[list[int]], Number]) -> Callable[[str], Number]:
    return lambda question: _whole(rule(numbers_in(question)))


def _expression(question: str) -> Number:
    text = max(re.findall(r"[\d()][\d()+*\- ]*", question), key=len)
    return _whole(evaluate(text))


def _sequence(question: str) -> Number:
    values = numbers_in(question)
    differences = [b - a for a, b in pairwise(values)]
    if len(set(differences)) == 1:
        return values[-1] + differences[-1]
    if len({Fraction(b, a) for a, b in pairwise(values)}) == 1:
        return _whole(values[-1] * Fraction(values[1], values[0]))
    growth = {b - a for a, b in pairwise(differences)}
    if len(growth) != 1:
        raise ValueError(f"no rule gives the sequence {values}")
    return values[-1] + differences[-1] + growth.pop()


def unit_factor(question: str) -> int:
    """Return how many of the smaller unit in `question` make one of the larger."""
    return _PER[frozenset(_UNIT.findall(question))]


def _convert(question: str) -> Number:
    return numbers_in(question)[0] * unit_factor(question)


def _convert_sum(question: str) -> Number:
    large, small = numbers_in(question)
    return large * unit_factor(question) + small


def _convert_gap(question: str) -> Number:
    n, m, k, j = numbers_in(question)
    return (n - k) * unit_factor(question) + m - j


def _days_between(question: str) -> Number:
    first, last = day_of(question)
    return (last - first).days


def _minutes_between(question: str) -> Number:
    (a, b), (c, d) = re.findall(r"(\d+):(\d\d)", question)
    return (int(c) - int(a)) * 60 + int(d) - int(b)


def _letter_count(question: str) -> Number:
    quoted: list[str] = sorted(re.findall(r'"([a-z]+)"', question), key=len)
    return quoted[1].count(quoted[0])


def _vowel_count(question: str) -> Number:
    return len(re.findall("[aeiou]", re.findall(r'"([a-z]+)"', question)[0]))


def category_in(question: str) -> str:
    """Return the category of things that `question` asks for."""
    return next(name for name in CATEGORIES if re.search(rf"(many|the) {name}\b", question))


def _category_count(question: str) -> Number:
    things = re.findall(r"(\d+) ([a-z]+)", question)
    return sum(int(count) for count, thing in things if thing in CATEGORIES[category_in(question)])


def _count_true(question: str) -> Number:
    return sum(claim_holds(claim) for claim in re.findall(r"\(\d+\) ([^.]+)\.", question))


def claim_holds(claim: str) -> bool:
    """Tell whether a claim about numbers is true. Raises ValueError for one that cannot be read."""
    values = numbers_in(claim)
    tests: tuple[tuple[str, Callable[[], bool]], ...] = (
        ("larger than", lambda: values[0] > values[1]),
        ("smaller than", lambda: values[0] < values[1]),
        ("is even", lambda: values[0] % 2 == 0),
        ("is odd", lambda: values[0] % 2 == 1),
        ("multiple of", lambda: values[0] % values[1] == 0),
        (" plus ", lambda: values[0] + values[1] == values[2]),
    )
    for pattern, holds in tests:
        if pattern in claim:
            return holds()
    raise ValueError(f"unreadable claim {claim!r}")


def _stock(question: str) -> Number:
    value = numbers_in(question)[0]
    for doubled, gained, _, amount in _STOCK.findall(question):
        value = value * 2 if doubled else value + int(amount) if gained else value - int(amount)
    return value


def _legs(question: str) -> Number:
    return sum(count * legs for count, _, legs in animals_in(question))


def animals_in(question: str) -> list[tuple[int, str, int]]:
    """Return number, name and legs of the animals in a question of reasoning-gym's leg_counting."""
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    legs: Mapping[str, int] = ANIMALS
    found = re.findall(r"(\d+) ([a-z ]+)", question)
    named = [(int(count), name if name in legs else name.removesuffix("s")) for count, name in found]
    return [(count, name, legs[name]) for count, name in named]


def _text_letters(question: str) -> Number:
    quoted: list[str] = re.findall(r'"([^"]+)"', question)
    return quoted[1].lower().count(quoted[0])


def _kth(question: str) -> Number:
    place = ("second smallest", "third smallest", "fourth smallest", "fifth smallest")
    k = next((i for i, name in enumerate(place, 1) if name in question), 0)
    return sorted(numbers_in(question))[k]


def _missing(question: str) -> Number:
    count, mean, *known = numbers_in(question)
    return count * mean - sum(known)


def _price_off(question: str) -> Number:
    share = int(re.findall(r"(\d+)%", question)[0])
    return _whole(numbers_in(question)[0] * (1 - Fraction(share, 100)))


NUMBER_RULES: Mapping[str, Callable[[str], Number]] = MappingProxyType(
    {
        "cost": _by(lambda n: n[0] * n[1]),
        "basket": _by(lambda n: n[0] * n[1] + n[2]),
        "change": _by(lambda n: n[4] - n[0] * n[1] - n[2] * n[3]),
        "discount": _by(lambda n: n[5] - (n[0] * n[1] + n[2] * n[3] - n[4])),
        "each": _by(lambda n: Fraction(n[0], n[1])),
        "each_after": _by(lambda n: Fraction(n[0] - n[1], n[2])),
        "left_over": _by(lambda n: (n[0] * n[1] + n[2]) % n[3]),
        "distance": _by(lambda n: n[0] * n[1]),
        "duration": _by(lambda n: Fraction(n[0], n[1])),
        "legs": _by(lambda n: n[0] * n[1] + n[2] * n[3]),
        "together": _by(lambda n: Fraction(n[2], n[0] + n[1])),
        "difference": _by(lambda n: n[0] - n[1]),
        "more": _by(lambda n: 2 * n[0] + n[1]),
        "compare_chain": _by(lambda n: n[0] + 2 * (n[0] + n[1]) - n[2]),
        "compare_times": _by(lambda n: n[0] + n[0] * n[1] + 2 * (n[0] * n[1] - n[2]) + n[3]),
        "mean": _by(lambda n: Fraction(sum(n), len(n))),
        "missing": _missing,
        "expression": _expression,
        "percent": _by(lambda n: Fraction(n[0] * n[1], 100)),
        "price_off": _price_off,
        "price_twice": _by(lambda n: Fraction(n[0] * (100 + n[1]) * (100 - n[2]), 10_000)),
        "fraction": _by(lambda n: Fraction(n[0] * n[2], n[1])),
        "fraction_rest": _by(lambda n: n[0] * (1 - Fraction(n[1], n[2])) * (1 - Fraction(n[3], n[4]))),
        "fraction_plus": _by(lambda n: (n[0] * (1 - Fraction(n[1], n[2])) + n[3]) * (1 - Fraction(n[4], n[5]))),
        "sequence": _sequence,
        "convert": _convert,
        "convert_sum": _convert_sum,
        "convert_gap": _convert_gap,
        "days_between": _days_between,
        "minutes_between": _minutes_between,
        "letter_count": _letter_count,
        "vowel_count": _vowel_count,
        "category_count": _category_count,
        "above_count": _by(lambda n: sum(value > n[0] for value in n[1:])),
        "count_true": _count_true,
        "stock": _stock,
        "kth": _kth,
        "chain_sum": _expression,
        "leg_counting": _legs,
        "letter_counting": _text_letters,
    }
)
