"""Keeping track: things in boxes, stocks that change, positions on a grid."""

from __future__ import annotations

import random

from lhrm_train.smol.questions.base import Draw, Kind, Template, ask, closing
from lhrm_train.smol.questions.words import COLOURS, NAMES, THINGS
from lhrm_train.smol.questions.working import add, multiply, subtract

BOX_ENDS = ("Where is the {thing} now?", "In which box is the {thing} at the end?", "Which box holds the {thing} now?")
SMALL_THINGS = ("key", "coin", "ring", "marble", "letter", "watch", "pen", "stone")
# Verbs of a change, and how the trace words the sum.
GAINS = ("buys {n} more", "finds {n}", "gets {n} as a present", "picks up {n}", "wins {n}")
LOSSES = ("gives away {n}", "sells {n}", "loses {n}", "drops {n}", "lends out {n}")
STOCK = Template(
    "stock",
    (
        "{name} has {a} {xs}. {events} How many {xs} does {name} have now?",
        "At first {name} has {a} {xs}. {events} What number of {xs} is left with {name}?",
        "{name} owns {a} {xs}. {events} How many {xs} are there in the end?",
    ),
    ("The number of {xs} is {answer}.", "It is {answer} now."),
)
STARTS = ("A robot stands at ({x}, {y}).", "A token is on the field ({x}, {y}).", "A turtle begins at ({x}, {y}).")
GRID_RULE = "Right and left change the first number, up and down the second."
GRID_ENDS = ("Where is it now?", "What is its position in the end?")
MOVES = {"right": (1, 0), "left": (-1, 0), "up": (0, 1), "down": (0, -1)}


def _boxes(rng: random.Random, level: int) -> Draw:
    colours = rng.sample(COLOURS, (2, 3, 3, 4)[level - 1])
    things = rng.sample(SMALL_THINGS, (1, 2, 3, 3)[level - 1])
    where = {thing: rng.choice(colours) for thing in things}
    asked, name = things[0], rng.choice(NAMES)
    told = [f"The {thing} is in the {where[thing]} box." for thing in things]
    rng.shuffle(told)
    steps, sentences, content = [f"The {asked} starts in the {where[asked]} box."], list(told), []
    for _ in range((1, 2, 5, 8)[level - 1]):
        if rng.random() < (0.5 if level > 1 else 0.0):
            a, b = rng.sample(colours, 2)
            where = {thing: {a: b, b: a}.get(box, box) for thing, box in where.items()}
            event = f"{name} swaps what is in the {a} box and the {b} box."
            steps.append(f"{a} and {b} swapped: {where[asked]} box.")
        else:
            thing = asked if rng.random() < 0.4 or level == 1 else rng.choice(things)
            box = rng.choice([colour for colour in colours if colour != where[thing]])
            where[thing] = box
            event = f"{name} puts the {thing} into the {box} box."
            stays = "" if thing == asked else f"; the {asked} stays"
            steps.append(f"The {thing} moved{stays}: {where[asked]} box.")
        sentences.append(event)
        content.append(event.removeprefix(name))
    question = " ".join([*sentences, rng.choice(BOX_ENDS).format(thing=asked)])
    answer = f"the {where[asked]} box"
    trace = " ".join([*steps, closing(rng, answer)])
    return Draw("boxes", f"boxes {asked} {sorted(told)} {content}", question, trace, answer, "exact")


def _inventory(rng: random.Random, level: int) -> Draw:
    name, (_, xs) = rng.choice(NAMES), rng.choice(THINGS)
    top = (12, 40, 80, 150)[level - 1]
    start = value = rng.randint(3, top)
    sentences, steps, content = [], [], [str(start)]
    for i in range((1, 2, 4, 6)[level - 1]):
        n = rng.randint(1, max(2, top // 2))
        if level >= 3 and value < top // 3 and rng.random() < 0.5:
            told, working, value = "doubles the number", multiply(value, 2), value * 2
        elif n > value or rng.random() < 0.5:
            told, working, value = rng.choice(GAINS).format(n=n), add(value, n), value + n
        else:
            told, working, value = rng.choice(LOSSES).format(n=n), subtract(value, n), value - n
        sentences.append(f"{rng.choice(('Then', 'After that', 'Next')) + ' ' if i else ''}{name} {told}.")
        steps.append(f"{working}.")
        content.append(working.partition(" = ")[0])
    fields = {"name": name, "xs": xs, "a": start, "events": " ".join(sentences)}
    return ask(rng, STOCK, fields, content, steps, value)


def _grid(rng: random.Random, level: int) -> Draw:
    x, y = (0, 0) if level == 1 else (rng.randint(0, 9), rng.randint(0, 9))
    start = rng.choice(STARTS).format(x=x, y=y)
    content, told, steps = [f"{x} {y}"], [], []
    for _ in range((1, 3, 5, 6)[level - 1]):
        way, n = rng.choice(list(MOVES)), rng.randint(1, 9)
        dx, dy = MOVES[way]
        told.append(f"{n} {way}")
        content.append(f"{n} {way}")
        sign = "+" if dx + dy > 0 else "-"
        old = x if dx else y
        x, y = x + n * dx, y + n * dy
        steps.append(f"{old} {sign} {n} = {x if dx else y}: ({x}, {y}).")
    answer = f"({x}, {y})"
    question = f"{start} {GRID_RULE} It moves {', then '.join(told)}. {rng.choice(GRID_ENDS)}"
    trace = " ".join([*steps, closing(rng, answer)])
    return Draw("grid", f"grid {content}", question, trace, answer, "exact")


KINDS = (Kind("boxes", _boxes), Kind("inventory", _inventory), Kind("grid", _grid))
