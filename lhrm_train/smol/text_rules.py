"""How the answer of each form that is no number follows from the text of its question, and checks of such traces.

A rule returns what is wrong, None where nothing is.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from types import MappingProxyType

from lhrm_train.smol.equations import chains, evaluate
from lhrm_train.smol.questions.words import SCALES
from lhrm_train.smol.rules import claim_holds, day_of, numbers_in

Rule = Callable[[str, str, str], str | None]
_WEEK = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
_EVENT = re.compile(
    r"The (\w+) is in the (\w+) box\."
    r"|puts the (\w+) into the (\w+) box"
    r"|swaps what is in the (\w+) box and the (\w+) box"
)
_STEP_OF = {"right": (1, 0), "left": (-1, 0), "up": (0, 1), "down": (0, -1)}


def _is(expected: str, answer: str) -> str | None:
    return None if answer == expected else f"the answer is {expected}"


def _weekday(signs: tuple[int, ...]) -> Rule:
    def rule(question: str, trace: str, answer: str) -> str | None:
        start = next(day for day in _WEEK if day in question)
        moved = sum(sign * n for sign, n in zip(signs, numbers_in(question), strict=True))
        if wrong := _is(_WEEK[(_WEEK.index(start) + moved) % 7], answer):
            return wrong
        rest, worked = abs(moved) % 7, chains(trace)
        if abs(moved) > 6 and (not worked or evaluate(worked[-1][0]) != rest):
            return f"{rest} days count"
        if any(int(told) != rest for told in re.findall(r"So (\d+) day", trace)):
            return f"{rest} days count"
        days = [_WEEK[(_WEEK.index(start) + (i if signs[0] > 0 else -i)) % 7] for i in range(1, rest + 1)]
        if f"From {start}: {', '.join(days) or 'the same day'}." not in trace:
            return f"the days passed are {days}"
        return None

    return rule


def _date_after(question: str, trace: str, answer: str) -> str | None:
    text = question.replace("a year of 365 days", "")
    start = day_of(text)[0]
    days = int(re.findall(r"(\d+) days?", text)[0])
    end = start + timedelta(days=days)
    if wrong := _is(f"{end:%B} {end.day}", answer):
        return wrong
    worked = chains(trace)
    return None if worked and evaluate(worked[-1][0]) == end.day else f"the last equation is not {end.day}"


def _time_after(question: str, trace: str, answer: str) -> str | None:
    hour, minute = map(int, re.findall(r"(\d+):(\d\d)", question)[0])
    for amount, unit in re.findall(r"(\d+) (hour|minute)", question):
        minute += int(amount) * (60 if unit == "hour" else 1)
    if wrong := _is(f"{hour + minute // 60}:{minute % 60:02d}", answer):
        return wrong
    values = {evaluate(members[0]) for members in chains(trace)}
    needed = {minute % 60, *([hour + minute // 60] if minute >= 60 else [])}
    return None if needed <= values else "minutes or hours of the answer are not worked out"


def _spelled(text: str) -> str:
    return "".join(re.findall(r"\b[A-Za-z]\b", text))


def _backwards(question: str, trace: str, answer: str) -> str | None:
    word = re.findall(r'"([A-Za-z]+)"', question)[0]
    forwards, _, rest = trace.removeprefix("Spelled: ").partition(". From the end: ")
    if _spelled(forwards) != word or _spelled(rest.partition(".")[0]) != word[::-1]:
        return "wrong spelling"
    return _is(word[::-1], answer)


def _letters_backwards(question: str, trace: str, answer: str) -> str | None:
    word = re.findall(r'"([a-z]+)"', question)[0]
    if _spelled(trace.partition(".")[0]) != word:
        return "wrong spelling"
    return _is(", ".join(reversed(word)), answer)


def _gym_backward(question: str, trace: str, answer: str) -> str | None:
    return _backwards(f'"{question.rpartition(": ")[2]}"', trace, answer)


def _picked(trace: str, items: list[str], order: Callable[[list[str]], str]) -> str | None:
    """Check that every step picks the first of the items that are left."""
    left = list(items)
    for told, pick in re.findall(r"[oO]f ([^:.]+): (\w+)\.", trace):
        if sorted(told.split(", ")) != sorted(left) or pick != order(left):
            return f"wrong step {told}: {pick}"
        left.remove(pick)
    return None if len(left) == 1 else f"{left} are not sorted"


def _sort_numbers(sign: int) -> Rule:
    def rule(question: str, trace: str, answer: str) -> str | None:
        values = sorted(numbers_in(question), key=lambda value: sign * value)
        wrong = _picked(trace, [str(v) for v in values], lambda left: min(left, key=lambda v: sign * int(v)))
        return wrong or _is(", ".join(map(str, values)), answer)

    return rule


def _sort_words(question: str, trace: str, answer: str) -> str | None:
    listed = re.sub(
        r"^Put these words in alphabetical order: |^Alphabetical order, please: |^Sort the words | from A to Z\.$",
        "",
        question,
    )
    words = sorted(listed.split(", "))
    return _picked(trace, words, min) or _is(", ".join(words), answer)


def _order(question: str, trace: str, answer: str) -> str | None:
    more, less, most, least = next(row for row in SCALES if row[2] in question or row[3] in question)
    above = {(a, b) for a, b in re.findall(rf"(\w+) is {more} than (\w+)", question)}
    above |= {(b, a) for a, b in re.findall(rf"(\w+) is {less} than (\w+)", question)}
    people = sorted({name for pair in above for name in pair})
    fitting = [
        order for order in itertools.permutations(people) if all(order.index(a) < order.index(b) for a, b in above)
    ]
    if len(fitting) != 1:
        return f"{len(fitting)} orders fit"
    if set(re.findall(rf"(\w+) is {more} than (\w+)", trace)) != above:
        return "other pairs than those that were told"
    if f"From {most} to {least}: {', '.join(fitting[0])}." not in trace:
        return "wrong order"
    asked = re.findall(rf"Who is the (second )?({most}|{least})\?", question)[0]
    place = (1 if asked[0] else 0) if asked[1] == most else (-2 if asked[0] else -1)
    return _is(fitting[0][place], answer)


def _truth(every: bool) -> Rule:
    def rule(question: str, trace: str, answer: str) -> str | None:
        claims = re.findall(r"\(\d+\) ([^.]+)\.", question)
        true = [claim_holds(claim) for claim in claims]
        said = re.findall(r": (true|false)\.", trace)
        if said != ["true" if holds else "false" for holds in true]:
            return f"wrong verdicts {said}"
        return _is("yes" if (all(true) if every else any(true)) else "no", answer)

    return rule


def _claim(question: str, trace: str, answer: str) -> str | None:
    return _is("yes" if claim_holds(question) else "no", answer)


def _boxes(question: str, trace: str, answer: str) -> str | None:
    asked = re.findall(r"(?:Where is|box is|holds) the (\w+)", question)[-1]
    where: dict[str, str] = {}
    expected = []
    for thing, box, moved, target, a, b in _EVENT.findall(question):
        if thing:
            where[thing] = box
            if thing == asked:
                expected.append(f"The {asked} starts in the {box} box.")
            continue
        if moved:
            where[moved] = target
            told = f"The {moved} moved" if moved == asked else f"The {moved} moved; the {asked} stays"
        else:
            where = {name: {a: b, b: a}.get(box, box) for name, box in where.items()}
            told = f"{a} and {b} swapped"
        expected.append(f"{told}: {where[asked]} box.")
    if not trace.startswith(" ".join(expected)):
        return f"the steps are {expected}"
    return _is(f"the {where[asked]} box", answer)


def _grid(question: str, trace: str, answer: str) -> str | None:
    x, y = map(int, re.findall(r"\((\d+), (\d+)\)", question)[0])
    places = []
    for amount, way in re.findall(r"(\d+) (right|left|up|down)", question):
        x, y = x + int(amount) * _STEP_OF[way][0], y + int(amount) * _STEP_OF[way][1]
        places.append(f"({x}, {y})")
    if re.findall(r": (\(-?\d+, -?\d+\))", trace) != places:
        return f"the places are {places}"
    return _is(places[-1], answer)


TEXT_RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "weekday_after": _weekday((1,)),
        "weekday_before": _weekday((-1,)),
        "weekday_both": _weekday((1, 1)),
        "date_after": _date_after,
        "time_after": _time_after,
        "backwards": _backwards,
        "letters_backwards": _letters_backwards,
        "spell_backward": _gym_backward,
        "sort_up": _sort_numbers(1),
        "sort_down": _sort_numbers(-1),
        "sort_words": _sort_words,
        "order": _order,
        "all_true": _truth(True),
        "any_true": _truth(False),
        "claim": _claim,
        "boxes": _boxes,
        "grid": _grid,
    }
)
