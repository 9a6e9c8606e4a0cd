"""Checks of what traces state in words beside their equations: letters, verdicts, picks, lengths of months, units.

A rule takes question and trace and returns what is wrong, None where nothing is.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from lhrm_train.smol.questions.words import CATEGORIES
from lhrm_train.smol.rules import (
    NO_LEAP_YEAR,
    animals_in,
    category_in,
    claim_holds,
    numbers_in,
    unit_factor,
)

TraceRule = Callable[[str, str], str | None]


def _counted(said: list[tuple[str, str]], counts: Callable[[str], bool]) -> str | None:
    """Check items with a running number behind each that counts, and only behind those."""
    number = 0
    for item, told in said:
        number += counts(item)
        if told != (str(number) if counts(item) else ""):
            return f"wrong count behind {item}: {told or 'none'}"
    return None


def _letters(wanted: Callable[[list[str]], str]) -> TraceRule:
    def rule(question: str, trace: str) -> str | None:
        quoted = sorted(re.findall(r'"([a-z]+)"', question), key=len)
        said = re.findall(r"\b([a-z])\b(?: \((\d+)\))?", trace.removeprefix("Letter by letter: ").partition(".")[0])
        if "".join(letter for letter, _ in said) != quoted[-1]:
            return "wrong spelling"
        return _counted(said, lambda letter: letter in wanted(quoted))

    return rule


def _above(question: str, trace: str) -> str | None:
    limit, *values = numbers_in(question)
    said = re.findall(r"(\d+) (yes|no)(?: \((\d+)\))?", trace)
    if [int(value) for value, _, _ in said] != values:
        return "other numbers"
    if any((verdict == "yes") != (int(value) > limit) for value, verdict, _ in said):
        return "wrong verdict"
    return _counted([(value, told) for value, _, told in said], lambda value: int(value) > limit)


def _verdicts(question: str, trace: str) -> str | None:
    claims = re.findall(r"\(\d+\) ([^.]+)\.", question) or [question]
    true = ["true" if claim_holds(claim) else "false" for claim in claims]
    said = re.findall(r": (true|false)(?: \((\d+)\))?\.", trace)
    if [verdict for verdict, _ in said] != true:
        return f"wrong verdicts {said}"
    return _counted(said, lambda verdict: verdict == "true" and len(claims) > 1)


def _kth(question: str, trace: str) -> str | None:
    left = numbers_in(question)
    for told, pick in re.findall(r"Of ([\d, ]+) the smallest is (\d+)\.", trace):
        if numbers_in(told) != left or int(pick) != min(left):
            return f"wrong step {told}: {pick}"
        left.remove(int(pick))
    return None if len(left) < len(numbers_in(question)) else "no step"


def _category(question: str, trace: str) -> str | None:
    mine = CATEGORIES[category_in(question)]
    things = re.findall(r"(\d+) ([a-z]+)", question)
    said = re.findall(r"(\d+) ([a-z]+): (yes|no)", trace)
    expected = [(count, thing, "yes" if thing in mine else "no") for count, thing in things]
    return None if said == expected else f"wrong verdicts {said}"


def _gym_legs(question: str, trace: str) -> str | None:
    said = [(int(n), name.strip(), int(legs)) for name, n, legs in re.findall(r"([a-z ]+): (\d+) \* (\d+)", trace)]
    return None if said == animals_in(question) else f"wrong legs {said}"


def _gym_letters(question: str, trace: str) -> str | None:
    letter, text = re.findall(r'"([^"]+)"', question)
    said = re.findall(r"(\w+) (\d+)(?: \((\d+)\))?", trace.partition(". ")[0])
    if [word for word, _, _ in said] != text.split():
        return "other words"
    total = 0
    for word, count, running in said:
        total += (own := word.lower().count(letter))
        if int(count) != own or running != (str(total) if own else ""):
            return f"wrong count behind {word}"
    return None


def _months(question: str, trace: str) -> str | None:
    names = list(calendar.month_name)
    for month, days in re.findall(r"([A-Z][a-z]+) (?:has|takes) (\d+)", trace):
        if int(days) != calendar.monthrange(NO_LEAP_YEAR, names.index(month))[1]:
            return f"{month} does not have {days} days"
    return None


def _unit(question: str, trace: str) -> str | None:
    said = re.match(r"1 \w+ is (\d+) \w+\.", trace)
    return None if said and int(said[1]) == unit_factor(question) else "wrong unit"


TRACE_RULES: Mapping[str, TraceRule] = MappingProxyType(
    {
        "letter_count": _letters(lambda quoted: quoted[0]),
        "vowel_count": _letters(lambda quoted: "aeiou"),
        "above_count": _above,
        "count_true": _verdicts,
        "claim": _verdicts,
        "kth": _kth,
        "category_count": _category,
        "leg_counting": _gym_legs,
        "letter_counting": _gym_letters,
        "date_after": _months,
        "days_between": _months,
        "convert": _unit,
        "convert_sum": _unit,
        "convert_gap": _unit,
    }
)
