"""Units, weekdays, dates and times of day."""

from __future__ import annotations

import random
from collections.abc import Mapping
from types import MappingProxyType

from lhrm_train.smol.questions.base import Draw, Kind, Template, ask, closing
from lhrm_train.smol.questions.words import NAMES
from lhrm_train.smol.questions.working import add, multiply, subtract

# Large unit, small unit, how many of these it has.
UNITS = (
    ("m", "cm", 100),
    ("km", "m", 1000),
    ("kg", "g", 1000),
    ("litres", "ml", 1000),
    ("hours", "minutes", 60),
    ("minutes", "seconds", 60),
    ("days", "hours", 24),
    ("weeks", "days", 7),
    ("feet", "inches", 12),
    ("yards", "feet", 3),
    ("pounds", "ounces", 16),
    ("years", "months", 12),
)
HARD_FACTORS = (16, 24)  # whose multiples few know by heart
CONVERT = Template(
    "convert",
    (
        "How many {small} are in {n} {large}?",
        "Convert {n} {large} to {small}.",
        "{n} {large} is how many {small}?",
    ),
    ("{n} {large} are {answer} {small}.", "It is {answer} {small}."),
)
COMPOUND = Template(
    "convert_sum",
    (
        "How many {small} are {n} {large} and {m} {small}?",
        "Write {n} {large} {m} {small} in {small}.",
        "{name} measured {n} {large} and {m} {small}. What is that in {small}?",
    ),
    ("It is {answer} {small}.",),
)
GAP = Template(
    "convert_gap",
    (
        "How many {small} more are {n} {large} {m} {small} than {k} {large} {j} {small}?",
        "What is the difference between {n} {large} {m} {small} and {k} {large} {j} {small}, in {small}?",
        "From {n} {large} {m} {small}, {k} {large} {j} {small} are taken away. How many {small} are left?",
    ),
    ("The difference is {answer} {small}.",),
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
AFTER = (
    "Today is {day}. What day of the week is it in {n} {days}?",
    "If today is {day}, which weekday comes {n} {days} from now?",
    "It is {day}. What day will it be after {n} {days}?",
)
BEFORE = (
    "Today is {day}. What day of the week was it {n} {days} ago?",
    "If today is {day}, which weekday was it {n} {days} earlier?",
    "It is {day}. {name} arrived {n} {days} ago. What weekday was that?",
)
BOTH = (
    "Today is {day}. A letter leaves in {n} days and arrives {m} days later. On what weekday does it arrive?",
    "It is {day}. {name} waits {n} days and then another {m} days. Which day of the week is it then?",
    "Suppose today is {day}. A course begins in {n} days, and the test is {m} days after that. "
    "On which weekday is the test?",
)
MONTHS = MappingProxyType(
    {
        "January": 31,
        "February": 28,
        "March": 31,
        "April": 30,
        "May": 31,
        "June": 30,
        "July": 31,
        "August": 31,
        "September": 30,
        "October": 31,
        "November": 30,
        "December": 31,
    }
)
DATE_AFTER = (
    "What date is {n} {days} after {date} in a year of 365 days?",
    "{name} leaves on {date} and returns {n} {days} later. On which date, if it is no leap year?",
    "A parcel sent on {date} arrives {n} {days} later. When is that, in a year of 365 days?",
)
DATE_BETWEEN = Template(
    "days_between",
    (
        "How many days are there from {date} to {other} in a year of 365 days?",
        "{name} counts the days from {date} until {other}. How many are they, if it is no leap year?",
        "It is {date}. In how many days is it {other}, in a year of 365 days?",
    ),
    ("There are {answer} days.", "It is {answer} days."),
)
CLOCK_IN = (
    "It is {time}. What time is it in {wait}?",
    "A film starts at {time} and lasts {wait}. When does it end?",
    "{name} leaves at {time} and needs {wait}. At what time does {name} arrive?",
)
CLOCK_BETWEEN = Template(
    "minutes_between",
    (
        "How many minutes are there from {time} to {other}?",
        "A class begins at {time} and ends at {other}. How many minutes does it last?",
        "{name} works from {time} to {other}. How many minutes is that?",
    ),
    ("It is {answer} minutes.",),
)


def _units(rng: random.Random, level: int) -> Draw:
    large, small, factor = rng.choice([unit for unit in UNITS if level > 1 or unit[2] not in HARD_FACTORS])
    name = rng.choice(NAMES)
    n = rng.randint((2, 10, 2, 3)[level - 1], (9, 40, 12, 15)[level - 1])
    fields: dict[str, object] = {"large": large, "small": small, "n": n, "name": name}
    fact = f"1 {'foot' if large == 'feet' else large.rstrip('s')} is {factor} {small}."
    if level <= 2:
        return ask(rng, CONVERT, fields, (large, small, n), (fact, f"{multiply(n, factor)}."), n * factor)
    m = rng.randint(2, factor - 1)
    total = n * factor + m
    steps = [fact, f"{multiply(n, factor)}.", f"{add(n * factor, m)}."]
    if level == 3:
        return ask(rng, COMPOUND, {**fields, "m": m}, (large, small, n, m), steps, total)
    k, j = rng.randint(2, n - 1), rng.randint(2, factor - 1)
    other = k * factor + j
    steps += [f"The other: {multiply(k, factor)}, {add(k * factor, j)}.", f"{subtract(total, other)}."]
    return ask(rng, GAP, {**fields, "m": m, "k": k, "j": j}, (large, small, n, m, k, j), steps, total - other)


def _plain(
    rng: random.Random,
    form: str,
    phrases: tuple[str, ...],
    fields: Mapping[str, object],
    numbers: tuple[object, ...],
    steps: list[str],
    answer: str,
) -> Draw:
    """Phrase a question whose answer is not a number."""
    return Draw(
        form=form,
        key=f"{form} {' '.join(map(str, numbers))}",
        question=rng.choice(phrases).format(**fields),
        trace=" ".join([*steps, closing(rng, answer)]),
        answer=answer,
        scorer="exact",
    )


def _days(n: int) -> str:
    return "day" if n == 1 else "days"


def _weeks(n: int) -> str:
    """Say what is left of `n` days without whole weeks, ten of them first."""
    steps = []
    for weeks in (n // 70 * 10, n % 70 // 7):
        if weeks:
            steps.append(f"{weeks} * 7 = {weeks * 7}, {subtract(n, weeks * 7)}.")
            n -= weeks * 7
    return " ".join([*steps, f"So {n} {_days(n)} count{'s' if n == 1 else ''}."])


def _walk(day: int, move: int) -> tuple[str, int]:
    """Return the weekdays passed from `day` on, `move` of them, forwards or backwards, and the last."""
    sign = 1 if move > 0 else -1
    passed = [DAYS[(day + sign * i) % 7] for i in range(abs(move) + 1)]
    return f"From {passed[0]}: {', '.join(passed[1:]) or 'the same day'}.", (day + move) % 7


def _weekday(rng: random.Random, level: int) -> Draw:
    day = rng.randrange(7)
    fields: dict[str, object] = {"day": DAYS[day], "name": rng.choice(NAMES)}
    n = rng.randint(1, 3) if level == 1 else rng.randint(4, 10) if level == 2 else rng.randint(15, 99)
    if level == 4:
        m = rng.randint(10, 60)
        steps = [f"{add(n, m)} days.", _weeks(n + m)]
        walked, end = _walk(day, (n + m) % 7)
        fields |= {"n": n, "m": m}
        return _plain(rng, "weekday_both", BOTH, fields, (day, n, m), [*steps, walked], DAYS[end])
    back = rng.random() < 0.5
    rest = n % 7
    walked, end = _walk(day, -rest if back else rest)
    steps = ([_weeks(n)] if n > 6 else []) + [walked]
    form, phrases = ("weekday_before", BEFORE) if back else ("weekday_after", AFTER)
    return _plain(rng, form, phrases, {**fields, "n": n, "days": _days(n)}, (day, n), steps, DAYS[end])


def _dates(rng: random.Random, level: int) -> Draw:
    names = list(MONTHS)
    month = rng.randrange(0, 12 if level == 1 else 10)
    length = MONTHS[names[month]]
    fields: dict[str, object] = {"name": rng.choice(NAMES)}
    if level == 1:
        n = rng.randint(2, 9)
        day = rng.randint(1, length - n)
        fields |= {"date": f"{names[month]} {day}", "n": n, "days": _days(n)}
        steps = [f"{add(day, n)}, still in {names[month]}."]
        return _plain(rng, "date_after", DATE_AFTER, fields, (month, day, n), steps, f"{names[month]} {day + n}")
    day = rng.randint(length - 9, length)
    if level == 3:
        return _days_between(rng, month, rng.randint(5, length - 2), fields)
    n = rng.randint(length - day + 1, length - day + (25 if level == 2 else 0) + 1)
    if level == 4:
        n = length - day + MONTHS[names[month + 1]] + rng.randint(1, 27)
    steps, left = [f"{names[month]} has {length} days: {subtract(length, day)} to its end."], n - length + day
    steps.append(f"{subtract(n, length - day)}.")
    for name in names[month + 1 :]:
        if left <= MONTHS[name]:
            break
        steps.append(f"{name} takes {MONTHS[name]}: {subtract(left, MONTHS[name])}.")
        left -= MONTHS[name]
    fields |= {"date": f"{names[month]} {day}", "n": n, "days": _days(n)}
    return _plain(rng, "date_after", DATE_AFTER, fields, (month, day, n), steps, f"{name} {left}")


def _days_between(rng: random.Random, month: int, day: int, fields: dict[str, object]) -> Draw:
    names = list(MONTHS)
    last = month + rng.randint(1, 2)
    first, end = names[month], rng.randint(2, 27)
    total = MONTHS[first] - day
    steps = [f"{first} has {MONTHS[first]} days: {subtract(MONTHS[first], day)}."]
    if last - month > 1:
        between = names[month + 1]
        steps.append(f"{between}: {add(total, MONTHS[between])}.")
        total += MONTHS[between]
    steps.append(f"{end} in {names[last]}: {add(total, end)}.")
    fields |= {"date": f"{first} {day}", "other": f"{names[last]} {end}"}
    return ask(rng, DATE_BETWEEN, fields, (month, day, last, end), steps, total + end)


def _time(minutes: int) -> str:
    return f"{minutes // 60 % 24}:{minutes % 60:02d}"


def _clock(rng: random.Random, level: int) -> Draw:
    fields: dict[str, object] = {"name": rng.choice(NAMES)}
    hour = rng.randint(6, 17)
    if rng.random() < (0.0, 0.0, 0.5, 0.6)[level - 1]:
        return _minutes_between(rng, hour, level, fields)
    minute = 5 * rng.randint(0, 5) if level == 1 else rng.randint(10, 55)
    wait = 5 * rng.randint(1, 5) if level == 1 else rng.randint(61 - minute, 59) if level == 2 else 0
    wait = wait or 60 * rng.randint(1, 4) + rng.randint(5, 59)
    hours, minutes = divmod(wait, 60)
    told = f"{minutes} minutes" if not hours else f"{hours} hour{'s' if hours > 1 else ''} and {minutes} minutes"
    end = 60 * hour + minute + wait
    steps = [f"Minutes: {add(minute, minutes)}."]
    told_hours = [f"{hour} + {hours} = {hour + hours}"] if hours else []
    if minute + minutes >= 60:
        steps.append(f"{subtract(minute + minutes, 60)} and one hour more.")
        told_hours.append(f"{hour + hours} + 1 = {end // 60}")
    if told_hours:
        steps.append(f"Hours: {', '.join(told_hours)}.")
    fields |= {"time": _time(60 * hour + minute), "wait": told}
    return _plain(rng, "time_after", CLOCK_IN, fields, (hour, minute, wait), steps, _time(end))


def _minutes_between(rng: random.Random, hour: int, level: int, fields: dict[str, object]) -> Draw:
    start = 60 * min(hour, 15) + rng.randint(10, 55)
    end = start + rng.randint(61, 179 if level == 3 else 400)
    to_hour = 60 - start % 60
    first, last, rest = start // 60 + 1, end // 60, end % 60
    whole = 60 * (last - first)
    steps = [f"To {first}:00: {subtract(60, start % 60)}."]
    if whole:
        steps.append(f"To {last}:00: {subtract(last, first)}, {multiply(last - first, 60)}.")
        steps.append(f"Together {add(to_hour, whole)}.")
    steps.append(f"To {end // 60}:{rest:02d}: {add(to_hour + whole, rest)}.")
    fields |= {"time": _time(start), "other": _time(end)}
    return ask(rng, CLOCK_BETWEEN, fields, (start, end), steps, end - start)


KINDS = (Kind("units", _units), Kind("weekday", _weekday), Kind("dates", _dates), Kind("clock", _clock))
