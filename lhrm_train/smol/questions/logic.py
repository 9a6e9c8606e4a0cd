"""Who is the tallest, and which statements are true."""

from __future__ import annotations

import random
from itertools import pairwise

from lhrm_train.smol.questions.base import Draw, Kind, Template, ask, closing
from lhrm_train.smol.questions.words import NAMES, SCALES
from lhrm_train.smol.questions.working import add

COUNT_TRUE = Template(
    "count_true",
    (
        "How many of these statements are true? {list}",
        "Count the true statements. {list}",
        "Some of these statements may be false. {list} How many are true?",
    ),
    ("The number of true statements is {answer}.",),
)
ONE = ("Is it true that {claim}? Answer yes or no.", "Yes or no: {claim}.", "True or not: {claim}? Say yes or no.")
ALL = (
    "Are all of these true? {list} Answer yes or no.",
    "Is every one of these statements true, yes or no? {list}",
)
ANY = (
    "Is at least one of these true? {list} Answer yes or no.",
    "Is any of these statements true, yes or no? {list}",
)


def _taller(rng: random.Random, level: int) -> Draw:
    people = rng.sample(NAMES, level + 1)  # from most to least
    more, less, most, least = rng.choice(SCALES)
    pairs = list(pairwise(people))
    rng.shuffle(pairs)
    told = [f"{a} is {more} than {b}." if rng.random() < 0.6 else f"{b} is {less} than {a}." for a, b in pairs]
    places = [(0, f"the {most}"), (len(people) - 1, f"the {least}")]
    if level >= 3:
        places += [(1, f"the second {most}"), (len(people) - 2, f"the second {least}")]
    place, asked = rng.choice(places)
    answer = people[place]
    steps = [f"{a} is {more} than {b}." for a, b in pairs]
    steps.append(f"From {most} to {least}: {', '.join(people)}.")
    said = " ".join(told)
    question = f"{said} Who is {asked}?" if rng.random() < 0.7 else f"Who is {asked}? {said}"
    trace = " ".join([*steps, closing(rng, answer)])
    return Draw("order", f"order {most} {people} {place}", question, trace, answer, "exact")


def _claim(rng: random.Random, level: int) -> tuple[str, str, bool]:
    """Draw a claim about numbers: its text, the facts that decide it, whether it is true."""
    shape = rng.choice(("larger", "smaller", "even", "odd", "sum", *(("multiple",) if level > 1 else ())))
    top = 30 if level < 3 else 99
    a, b = rng.sample(range(2, 13 if shape == "sum" and level == 1 else top), 2)
    if shape in ("larger", "smaller"):
        true = "larger" if a > b else "smaller"
        return f"{a} is {shape} than {b}", f"{a} is {true} than {b}", shape == true
    if shape in ("even", "odd"):
        true = "odd" if a % 2 else "even"
        return f"{a} is {shape}", f"{a} ends in {a % 10}, so it is {true}", shape == true
    if shape == "sum":
        total = a + b if rng.random() < 0.5 else a + b + rng.choice((-10, -2, -1, 1, 2, 10))
        return f"{a} plus {b} is {total}", _compared(add(a, b), a + b, total), total == a + b
    b = rng.randint(3, 9)
    a = b * rng.randint(2, 12) + rng.choice((0, 0, 1, 2))
    below = a // b * b
    return f"{a} is a multiple of {b}", _compared(f"{b} * {a // b} = {below}", below, a), below == a


def _compared(equation: str, value: int, claimed: int) -> str:
    return equation if value == claimed else f"{equation}, not {claimed}"


def _claims(rng: random.Random, level: int, count: int) -> tuple[str, list[str], list[bool]]:
    """Return numbered claims as one text, the steps that check them, and which are true."""
    drawn = [_claim(rng, level) for _ in range(count)]
    listed = " ".join(f"({i}) {text}." for i, (text, _, _) in enumerate(drawn, 1))
    steps = [f"({i}) {check}: {'true' if holds else 'false'}." for i, (_, check, holds) in enumerate(drawn, 1)]
    return listed, steps, [holds for _, _, holds in drawn]


def _truth(rng: random.Random, level: int) -> Draw:
    if level == 1:
        text, check, holds = _claim(rng, level)
        answer = "yes" if holds else "no"
        trace = f"{check}: {'true' if holds else 'false'}. {closing(rng, answer)}"
        return Draw("claim", f"claim {text}", rng.choice(ONE).format(claim=text), trace, answer, "exact")
    listed, steps, true = _claims(rng, level, level + rng.randint(0, 1))
    if level >= 3 or rng.random() < 0.3:
        counted = [
            f"{step[:-1]} ({sum(true[: i + 1])})." if true[i] else step for i, step in enumerate(steps)
        ]  # a running number behind each that is true
        return ask(rng, COUNT_TRUE, {"list": listed}, (listed,), counted, sum(true))
    every = rng.random() < 0.5
    answer = "yes" if (all(true) if every else any(true)) else "no"
    trace = " ".join([*steps, closing(rng, answer)])
    question = rng.choice(ALL if every else ANY).format(list=listed)
    return Draw("all_true" if every else "any_true", f"{every} {listed}", question, trace, answer, "exact")


KINDS = (Kind("ranking", _taller), Kind("truth", _truth))
