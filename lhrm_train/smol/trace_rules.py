"""Checks of what traces state in words beside their equations: letters, verdicts, picks, lengths of months, units.

A rule takes question and trace and returns what is wrong, None where nothing is.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from lhrm_train.smol.questions.words import CATEGORIES
from lhrm_train.smol.rules import (
    NO_LEAP_YEAR,
    NUMBER_RULES,
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


def false_fact(claims: Sequence[str], trace: str) -> str | None:
    """Return which fact is wrong that `trace` states about one of `claims`, or is about other numbers."""
    for a, relation, b in re.findall(r"(\d+) is (larger|smaller) than (\d+)", trace):
        if (int(a) > int(b)) != (relation == "larger"):
            return f"{a} is not {relation} than {b}"
    for number, digit, parity in re.findall(r"(\d+) ends in (\d+), so it is (even|odd)", trace):
        if number[-1] != digit or (int(number) % 2 == 0) != (parity == "even"):
            return f"{number} does not end in {digit} or is not {parity}"
    told = re.findall(r"(?:\((\d+)\) )?(\d[^:.]*): (?:true|false)", trace)
    for number, (claim, (label, fact)) in enumerate(zip(claims, told, strict=False), 1):
        if label not in ("", str(number)) or not set(numbers_in(claim)) <= set(numbers_in(fact)):
            return f"{fact} is not about {claim}"
    return None


def _verdicts(question: str, trace: str) -> str | None:
    claims = re.findall(r"\(\d+\) ([^.]+)\.", question) or [question]
    if wrong := false_fact(claims, trace):
        return wrong
    true = ["true" if claim_holds(claim) else "false" for claim in claims]
    said = re.findall(r": (true|false)(?: \((\d+)\))?\.", trace)
    if [verdict for verdict, _ in said] != true:
        return f"wrong verdicts {said}"
    return _counted(said, lambda verdict: verdict == "true" and len(claims) > 1)


def _verdicts_alone(question: str, trace: str) -> str | None:
    return false_fact(re.findall(r"\(\d+\) ([^.]+)\.", question), trace)


def _kth(question: str, trace: str) -> str | None:
    left, last = numbers_in(question), None
    for told, pick in re.findall(r"Of ([\d, ]+) the smallest is (\d+)\.", trace):
        if numbers_in(told) != left or int(pick) != min(left):
            return f"wrong step {told}: {pick}"
        left.remove(int(pick))
        last = int(pick)
    return None if last == NUMBER_RULES["kth"](question) else "the last step finds another number"


def _category(question: str, trace: str) -> str | None:
    mine = CATEGORIES[category_in(question)]
    things = re.findall(r"(\d+) ([a-z]+)", question)
    expected, total = [], 0
    for count, thing in things:
        total += int(count) if thing in mine else 0
        expected.append((count, thing, "yes" if thing in mine else "no", str(total) if thing in mine else ""))
    said = re.findall(r"(\d+) ([a-z]+): (yes|no)(?:,[^.]* (\d+))?\.", trace)
    return None if said == expected else f"wrong verdicts {said}"


def _gym_legs(question: str, trace: str) -> str | None:
    said = re.findall(r"([a-z ]+): (?:(\d+) \* (\d+)|no legs)", trace)
    found = [(name.strip(), int(count or 0) * int(legs or 0), int(legs or 0)) for name, count, legs in said]
    expected = [(name, count * legs, legs) for count, name, legs in animals_in(question)]
    return None if found == expected else f"wrong legs {found}"


def _gym_letters(question: str, trace: str) -> str | None:
    letter, text = re.findall(r'"([^"]+)"', question)
    said = trace.partition(". ")[0].split("; ")
    if [re.split("[: ]", part)[0] for part in said] != text.split():
        return "other words"
    spelled: list[tuple[str, str]] = []
    for part in said:
        word, _, letters = part.partition(": ")
        if not letters and part != f"{part.removesuffix(' no')} no":
            return f"no verdict in {part}"
        if (letter in part.removesuffix(" no").lower()) != bool(letters):
            return f"wrong verdict on {part}"
        own = re.findall(r"(\w)(?: \((\d+)\))?", letters)
        if letters and "".join(one for one, _ in own) != word:
            return f"wrong spelling of {word}"
        spelled += own
    return _counted(spelled, lambda one: one.lower() == letter)


def _months(question: str, trace: str) -> str | None:
    names = list(calendar.month_name)
    for month, days in re.findall(r"([A-Z][a-z]+) (?:has|takes) (\d+)", trace):
        if month not in names or int(days) != calendar.monthrange(NO_LEAP_YEAR, names.index(month))[1]:
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
        "all_true": _verdicts_alone,
        "any_true": _verdicts_alone,
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
