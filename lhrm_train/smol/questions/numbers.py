"""Expressions, percentages, fractions and sequences."""

from __future__ import annotations

import ast
import math
import random
from itertools import pairwise

from lhrm_train.smol.questions.base import Draw, Kind, Template, ask
from lhrm_train.smol.questions.words import NAMES, THINGS
from lhrm_train.smol.questions.working import add, divide, multiply, operate, subtract

EXPRESSION = Template(
    "expression",
    ("What is {e}?", "Calculate {e}.", "Work out {e}.", "Compute: {e}", "How much is {e}?", "Please solve {e} for me."),
    ("{e} is {answer}.", "It is {answer}.", "The result is {answer}."),
)
EXPRESSIONS = {
    1: ("{a} + {b}", "{a} - {b}", "{c} * {d}"),
    2: ("{f} + {g}", "{f} - {g}", "{f} * {c}", "{a} + {b} + {c}"),
    3: ("{f} * {c} + {g}", "{f} + {g} * {c}", "{f} * {c} - {b} * {d}", "{h} - {f} - {g}", "({f} + {g}) * {c}"),
    4: (
        "({f} + {g}) * {c} - {b}",
        "({f} - {b}) * ({c} + {d})",
        "{f} * {c} + {g} * {d} - {a}",
        "{h} - ({a} + {b}) * {c}",
        "{f} * {k}",
    ),
}
_SIGNS: dict[type[ast.operator], str] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*"}
PERCENT = Template(
    "percent",
    (
        "What is {p}% of {n}?",
        "Find {p} percent of {n}.",
        "{p}% of the {n} {xs} are sold. How many {xs} is that?",
    ),
    ("{p}% of {n} is {answer}.", "It is {answer}."),
)
PRICE = Template(
    "price_off",
    (
        "A bag for ${n} is reduced by {p}%. What is the new price in dollars?",
        "{name} buys a ticket of ${n} with {p}% off. How many dollars does {name} pay?",
        "Of {n} {xs}, {p}% are sold. How many {xs} are left?",
    ),
    ("It is {answer} now.", "That leaves {answer}."),
)
TWICE = Template(
    "price_twice",
    (
        "A coat costs ${n}. Its price goes up by {p}%, and then the new price is reduced by {q}%. "
        "What does it cost in the end?",
        "The value of a share is ${n}. It rises {p}% and then falls {q}%. What is it worth then?",
        "{name} pays ${n} for rent. The rent rises by {p}% and later falls by {q}%. How many dollars is it then?",
    ),
    ("In the end it is ${answer}.",),
)
FRACTION = Template(
    "fraction",
    (
        "What is {x}/{y} of {n}?",
        "How many {xs} are {x}/{y} of {n} {xs}?",
        "{name} has read {x}/{y} of a book of {n} pages. How many pages is that?",
    ),
    ("{x}/{y} of {n} is {answer}.", "It is {answer}."),
)
REST = Template(
    "fraction_rest",
    (
        "{name} has {n} {xs}, gives {x}/{y} of them away and then {u}/{v} of the rest. How many {xs} are left?",
        "Of {n} {xs}, {x}/{y} are sold in the morning and {u}/{v} of the others in the afternoon. How many remain?",
        "From a box of {n} {xs}, {name} takes {x}/{y}. Then {u}/{v} of those in the box are lost. "
        "How many {xs} does the box hold?",
    ),
    ("The number of {xs} left is {answer}.",),
)
REST_PLUS = Template(
    "fraction_plus",
    (
        "{name} has {n} {xs}, gives {x}/{y} of them away, gets {m} new ones, and then loses {u}/{v} of all. "
        "How many {xs} are left?",
        "A shop has {n} {xs}. It sells {x}/{y} of them, takes in {m} more and then sells {u}/{v} of the stock. "
        "How many {xs} does it have now?",
        "There are {n} {xs} in a box. {x}/{y} of them are taken out, {m} are put in, and {u}/{v} of all are sold. "
        "How many {xs} are in the box?",
    ),
    ("The number of {xs} left is {answer}.",),
)
SEQUENCE = Template(
    "sequence",
    (
        "What number comes next: {list}, ...?",
        "Continue the sequence {list}. Which number follows?",
        "{list} and so on. What is the next number?",
    ),
    ("The next number is {answer}.", "{answer} comes next."),
)
EASY_PERCENTS = {1: (10, 50), 2: (20, 25, 5, 75), 3: (5, 15, 20, 25, 30, 40, 60), 4: (10, 20, 25, 50)}


def _expression(rng: random.Random, level: int) -> Draw:
    b, c, d = rng.randint(2, 9), rng.randint(2, 9), rng.randint(2, 9)
    g = rng.randint(11, 50)
    fields = {
        "a": b + rng.randint(1, 15),
        "b": b,
        "c": c,
        "d": d,
        "f": g + rng.randint(3, 49),
        "g": g,
        "h": rng.randint(250, 900),
        "k": rng.randint(11, 39),
    }
    text = rng.choice(EXPRESSIONS[level]).format(**fields)
    steps, value = worked_out(text)
    return ask(rng, EXPRESSION, {"e": text}, (text,), steps, value)


def worked_out(text: str) -> tuple[list[str], int]:
    """Return the steps and the value of an expression of whole numbers."""
    steps: list[str] = []
    value = _work_out(ast.parse(text, mode="eval").body, steps)
    return steps, value


def _work_out(node: ast.expr, steps: list[str]) -> int:
    """Return the value of an expression of whole numbers; every operation becomes a step."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if not isinstance(node, ast.BinOp):
        raise TypeError(f"{ast.unparse(node)}: not an operation on whole numbers")
    left, right = _work_out(node.left, steps), _work_out(node.right, steps)
    working, value = operate(left, _SIGNS[type(node.op)], right)
    steps.append(f"{working}.")
    return value


def _part(n: int, p: int) -> tuple[str, int]:
    """Return the working and the value of p% of n, which must be whole."""
    if n % 100 == 0:
        return f"1% of {n} is {n // 100}, and {multiply(n // 100, p)}", n * p // 100
    shared = math.gcd(100, p)
    x, y = p // shared, 100 // shared
    working = f"{p}% is {x}/{y}, and {divide(n, y)}"
    return f"{working}, {multiply(n // y, x)}" if x > 1 else working, n * p // 100


def _whole(rng: random.Random, p: int, top: int) -> int:
    """Draw a number up to about `top` of which p% is whole."""
    step = 100 // math.gcd(100, p)
    return step * rng.randint(2, max(3, top // step))


def _percent(rng: random.Random, level: int) -> Draw:
    name, (_, xs) = rng.choice(NAMES), rng.choice(THINGS)
    p = rng.choice(EASY_PERCENTS[level])
    n = _whole(rng, p, (100, 300, 400, 400)[level - 1])
    fields: dict[str, object] = {"name": name, "xs": xs, "p": p, "n": n}
    working, part = _part(n, p)
    if level <= 2:
        return ask(rng, PERCENT, fields, (p, n), (f"{working}.",), part)
    if level == 3:
        steps = [f"{p}% of {n}: {working}.", f"Left: {subtract(n, part)}."]
        return ask(rng, PRICE, fields, (n, p), steps, n - part)
    q = rng.choice(EASY_PERCENTS[4])
    n = 100 * rng.randint(1, 9)
    working, part = _part(n, p)
    while (n + part) * q % 100:
        q = rng.choice((10, 20, 50))
        n += 100
        working, part = _part(n, p)
    then, less = _part(n + part, q)
    steps = [
        f"{p}% of {n}: {working}.",
        f"Up: {add(n, part)}.",
        f"{q}% of {n + part}: {then}.",
        f"Down: {subtract(n + part, less)}.",
    ]
    return ask(rng, TWICE, {**fields, "n": n, "q": q}, (n, p, q), steps, n + part - less)


def _fractions(rng: random.Random, level: int) -> Draw:
    name, (_, xs) = rng.choice(NAMES), rng.choice(THINGS)
    y = rng.randint(2, (4, 9, 5, 5)[level - 1])
    y = max(y, 3) if level == 2 else y
    x = 1 if level == 1 else rng.randint(2, y - 1) if level == 2 else rng.randint(1, y - 1)
    unit = rng.randint(2, (9, 12, 15, 15)[level - 1])
    if level <= 2:
        n = y * unit
        steps = [f"1/{y} of {n}: {divide(n, y)}."] + ([f"{x} of these: {multiply(unit, x)}."] if x > 1 else [])
        fields: dict[str, object] = {"name": name, "xs": xs, "x": x, "y": y, "n": n}
        return ask(rng, FRACTION, fields, (x, y, n), steps, unit * x)
    v = rng.randint(2, 4)
    u = rng.randint(1, v - 1)
    n = y * v * rng.randint(2, 6)
    gone = n // y * x
    rest, steps = n - gone, [f"1/{y} of {n}: {divide(n, y)}."]
    steps += [f"{x}/{y}: {multiply(n // y, x)}."] if x > 1 else []
    steps.append(f"Left: {subtract(n, gone)}.")
    fields = {"name": name, "xs": xs, "x": x, "y": y, "n": n, "u": u, "v": v}
    if level == 4:
        m = rng.randint(1, 5) * v - rest % v
        fields["m"] = m
        steps.append(f"With the new: {add(rest, m)}.")
        rest += m
    elif rest % v:
        return _fractions(rng, level)
    less = rest // v * u
    steps.append(f"1/{v} of {rest}: {divide(rest, v)}.")
    steps += [f"{u}/{v}: {multiply(rest // v, u)}."] if u > 1 else []
    steps.append(f"Left: {subtract(rest, less)}.")
    numbers = (n, x, y, *((fields["m"],) if level == 4 else ()), u, v)
    return ask(rng, REST_PLUS if level == 4 else REST, fields, numbers, steps, rest - less)


def _sequence(rng: random.Random, level: int) -> Draw:
    start = rng.randint(1, 30)
    if level <= 2:
        step = rng.randint(1, 10) if level == 1 else rng.randint(11, 45)
        values = [start + step * i for i in range(5)]
        if level == 2 and rng.random() < 0.5:
            values.reverse()
            values = [value + step for value in values]
        less, more = sorted(values[-3:-1])
        steps = [f"{subtract(more, less)}: {step} {'more' if values[-1] > less else 'less'} each time."]
    elif level == 3 and rng.random() < 0.5:
        start, factor = rng.randint(1, 9), rng.randint(2, 4)
        values = [start * factor**i for i in range(5)]
        last = values[3]
        steps = [f"{values[1]} / {values[0]} = {factor} and {values[2]} / {values[1]} = {factor}: times {factor}."]
        return ask(rng, SEQUENCE, _listed(values), values, [*steps, f"{multiply(last, factor)}."], values[4])
    else:
        values, steps = _growing(rng, start, level)
    difference = values[-1] - values[-2]
    working = add(values[-2], difference) if difference >= 0 else subtract(values[-2], -difference)
    return ask(rng, SEQUENCE, _listed(values), values, [*steps, f"{working}."], values[-1])


def _growing(rng: random.Random, start: int, level: int) -> tuple[list[int], list[str]]:
    """Draw a sequence whose differences grow by the same amount, and what is said about them."""
    first, growth = rng.randint(1, 9), rng.randint(1, 4 if level == 3 else 9)
    count = 5 if level == 3 else 6
    differences = [first + growth * i for i in range(count)]
    values = [start]
    for difference in differences:
        values.append(values[-1] + difference)
    said = ", ".join(subtract(b, a) for a, b in pairwise(values[:-1]))
    grown = f"{subtract(differences[-2], differences[-3])} more each time"
    return values, [f"The differences: {said}.", f"{grown}: {add(differences[-2], growth)}."]


def _listed(values: list[int]) -> dict[str, object]:
    return {"list": ", ".join(map(str, values[:-1]))}


KINDS = (
    Kind("expression", _expression),
    Kind("percent", _percent),
    Kind("fractions", _fractions),
    Kind("sequence", _sequence),
)
