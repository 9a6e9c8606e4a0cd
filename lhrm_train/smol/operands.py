"""Whether every equation of a trace stands on the question: its numbers come from there, or from an equation before."""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from types import MappingProxyType

from lhrm_train.smol.equations import chains, evaluate, without_equations
from lhrm_train.smol.rules import NO_LEAP_YEAR, animals_in, numbers_in, unit_factor

# Numbers that a form may bring along: of a fact that its own rule checks, or tried until they fit.
_LENGTHS = frozenset(calendar.monthrange(NO_LEAP_YEAR, month)[1] for month in range(1, 13))
_CONVERSIONS = ("convert", "convert_sum", "convert_gap")
_FACTORS = frozenset(range(1, 10)) | frozenset(range(10, 100, 10))
Constants = Callable[[str], frozenset[int]]
CONSTANTS: Mapping[str, Constants] = MappingProxyType(
    {
        **{form: lambda question: frozenset({1, unit_factor(question)}) for form in _CONVERSIONS},
        **{form: lambda question: _LENGTHS for form in ("date_after", "days_between")},
        **{form: lambda question: _FACTORS | {7} for form in ("weekday_after", "weekday_before", "weekday_both")},
        **{form: lambda question: _FACTORS for form in ("left_over", "duration", "together")},
        **{form: lambda question: _FACTORS | {0, 11, 12} for form in ("claim", "count_true", "all_true", "any_true")},
        "time_after": lambda question: frozenset({1, 60}),
        "minutes_between": lambda question: frozenset({0, 60, numbers_in(question)[0] + 1}),
        **{form: lambda question: frozenset({1}) for form in ("fraction", "fraction_rest", "fraction_plus")},
        "mean": lambda question: frozenset({len(numbers_in(question))}),
        "stock": lambda question: frozenset({2}),
        "leg_counting": lambda question: frozenset(legs for _, _, legs in animals_in(question)),
    }
)
# Forms whose answer is how often a number goes into another, and those that count and need no equation.
TRIED = frozenset({"duration", "together"})
COUNTED = frozenset(
    {"count_true", "category_count", "letter_count", "vowel_count", "above_count", "kth", "letter_counting"}
)


def unfounded(form: str, question: str, trace: str) -> str | None:
    """Return which equation uses a number that neither the question nor an earlier equation gives."""
    known = set(numbers_in(question)) | CONSTANTS.get(form, lambda question: frozenset())(question)
    if isinstance(parts := _percents(question, trace), str):
        return parts
    known |= parts
    for members in chains(trace):
        if unknown := [number for number in numbers_in(members[0]) if number not in known]:
            return f"{unknown[0]} in {members[0]} comes from nowhere"
        known.add(abs(int(evaluate(members[0]))))
    around = numbers_in(without_equations(trace)) if chains(trace) else []
    return next((f"{number} comes from nowhere" for number in around if number not in known), None)


def wrong_last(form: str, trace: str, answer: str) -> str | None:
    """Return what is wrong where the answer of a form with a numeric answer is not the value of the last equation."""
    if form in COUNTED:
        return None
    worked = chains(trace)
    if not worked:
        return None if form == "leg_counting" and answer == "0" else "no equation"  # of animals without legs
    last = str(evaluate(worked[-1][0]))
    if form in TRIED and last == "0":
        last = worked[-2][0].partition(" * ")[0]  # as often it went into all of it
    return None if last == answer else f"the last equation is not {answer}"


def _percents(question: str, trace: str) -> set[int] | str:
    """Return the numbers that are said of percentages, or what is wrong with them."""
    asked = re.findall(r"(\d+)(?:%| percent)", question)
    known: set[int] = set()
    for share, x, y in re.findall(r"(\d+)% is (\d+)/(\d+)", trace):
        if share not in asked or Fraction(int(x), int(y)) != Fraction(int(share), 100):
            return f"{share}% is not {x}/{y}, or not asked for"
        known |= {int(x), int(y)}
    for whole, part in re.findall(r"\b1% of (\d+) is (\d+)", trace):
        if int(whole) != 100 * int(part):
            return f"1% of {whole} is not {part}"
        known |= {1, int(part)}
    for share in re.findall(r"(\d+)% of \d+:", trace):
        if share not in asked:
            return f"nobody asked for {share}%"
    return known
