"""Word problems: shopping, sharing, rates, comparing people, averages."""

from __future__ import annotations

import random

from lhrm_train.smol.questions.base import Draw, Kind, Template, ask
from lhrm_train.smol.questions.words import CONTAINERS, NAMES, THINGS, two_names
from lhrm_train.smol.questions.working import add, divide, multiply, subtract

COST = Template(
    "cost",
    (
        "{one} costs ${p}. How much do {n} {xs} cost?",
        "A shop sells {xs} for ${p} each. What is the price of {n} {xs}?",
        "At ${p} for one, how many dollars does {name} pay for {n} {xs}?",
    ),
    ("{n} {xs} cost ${answer}.", "That is ${answer}."),
)
BASKET = Template(
    "basket",
    (
        "{name} buys {n} {xs} at ${p} each and {two} for ${q}. How many dollars does {name} spend?",
        "{n} {xs} cost ${p} each. {name} takes all of them and also {two} for ${q}. What is the total in dollars?",
        "In a shop, {name} pays for {n} {xs} at ${p} apiece and {two} at ${q}. How much is that in all?",
    ),
    ("{name} spends ${answer}.", "The total is ${answer}."),
)
CHANGE = Template(
    "change",
    (
        "{name} buys {n} {xs} at ${p} each and {m} {ys} at ${q} each, and pays with ${paid}. "
        "How much change does {name} get?",
        "{n} {xs} for ${p} each and {m} {ys} for ${q} each go into the basket of {name}, who hands over ${paid}. "
        "How many dollars come back?",
        "At the market {name} takes {n} {xs} (${p} each) and {m} {ys} (${q} each). {name} had ${paid}. "
        "How much money is left?",
    ),
    ("{name} gets ${answer} back.", "${answer} is left."),
)
DISCOUNT = Template(
    "discount",
    (
        "{name} orders {n} {xs} at ${p} each and {m} {ys} at ${q} each. A voucher takes ${off} off, and {name} pays "
        "with ${paid}. How much change is due?",
        "The bill is for {n} {xs} at ${p} and {m} {ys} at ${q} each, less a discount of ${off}. "
        "How many dollars does {name} keep of ${paid}?",
        "{name} takes {n} {xs} for ${p} each and {m} {ys} for ${q} each, has ${off} in bonus points and gives ${paid}. "
        "How many dollars come back?",
    ),
    ("The change is ${answer}.", "{name} keeps ${answer}."),
)
EACH = Template(
    "each",
    (
        "{n} {xs} are shared equally among {k} children. How many does each child get?",
        "{name} puts {n} {xs} evenly into {k} {boxes}. How many {xs} are in each of them?",
        "Divide {n} {xs} fairly between {k} people. How many does one person get?",
    ),
    ("Each gets {answer} {xs}.", "It is {answer} each."),
)
EACH_AFTER = Template(
    "each_after",
    (
        "{name} has {n} {xs}, keeps {m} and shares the rest equally among {k} friends. How many does each friend get?",
        "Of {n} {xs}, {m} are broken. The others go evenly into {k} {boxes}. How many {xs} are in one of them?",
        "There are {n} {xs}. {name} gives {m} away and divides what remains between {k} people. "
        "How many are there for each?",
    ),
    ("Each gets {answer} {xs}.", "There are {answer} for each."),
)
LEFT_OVER = Template(
    "left_over",
    (
        "{name} has {n} {boxes} of {m} {xs} each, and {extra} more {xs}. {k} people share them equally, as many each "
        "as possible. How many {xs} are left over?",
        "{n} {boxes} hold {m} {xs} each; another {extra} {xs} lie beside them. {k} children divide all of them fairly. "
        "How many {xs} remain?",
        "After a party there are {n} {boxes} of {m} {xs} each and {extra} loose {xs}. {k} guests take as many as they "
        "can, each the same number. How many {xs} are left?",
    ),
    ("The number of {xs} left over is {answer}.", "What remains is {answer}."),
)
DISTANCE = Template(
    "distance",
    (
        "A {vehicle} travels at {v} km per hour. How many kilometres does it cover in {t} hours?",
        "Going {v} km every hour, how far does a {vehicle} get in {t} hours?",
        "How far in km is a trip at {v} km/h that lasts {t} hours?",
    ),
    ("It covers {answer} km.", "{answer} km."),
)
DURATION = Template(
    "duration",
    (
        "A {vehicle} covers {d} km at {v} km per hour. How many hours does that take?",
        "How many hours does a trip of {d} km last at {v} km/h?",
        "{name} drives {d} km, {v} km in every hour. How many hours is {name} on the road?",
    ),
    ("It takes {answer} hours.", "{answer} hours."),
)
LEGS = Template(
    "legs",
    (
        "A {vehicle} goes {v} km per hour for {t} hours and then {w} km per hour for {u} hours. "
        "How far does it go in all, in km?",
        "{name} travels at {v} km/h for {t} hours and, after a break, at {w} km/h for {u} hours. "
        "How many kilometres is that together?",
        "How long in km is a way that takes {v} km/h for {t} hours and {w} km/h for {u} hours?",
    ),
    ("It is {answer} km in all.", "{answer} km."),
)
TOGETHER = Template(
    "together",
    (
        "One machine makes {v} {xs} per hour and another makes {w}. How many hours do both need together for {d} {xs}?",
        "{name} packs {v} {xs} an hour, {other} packs {w}. How many hours do both need for {d} {xs}?",
        "A tap gives {v} litres a minute and a hose {w}. How many minutes do they need together to fill {d} litres?",
    ),
    ("They need {answer}.",),
)
DIFFERENCE = Template(
    "difference",
    (
        "{name} has {a} {xs} and {other} has {b}. How many more {xs} does {name} have?",
        "There are {a} {xs} on the table of {name} and {b} on that of {other}. What is the difference?",
        "{name} collected {a} {xs}, {other} {b}. By how many {xs} is {name} ahead?",
    ),
    ("{name} has {answer} more.", "The difference is {answer}."),
)
MORE = Template(
    "more",
    (
        "{name} has {a} {xs}. {other} has {b} more than {name}. How many {xs} do they have together?",
        "{name} found {a} {xs}, and {other} found {b} more than that. How many {xs} did the two find?",
        "With {a} {xs}, {name} has {b} fewer than {other}. How many {xs} do both have together?",
    ),
    ("Together they have {answer} {xs}.", "That is {answer} {xs}."),
)
CHAIN = Template(
    "compare_chain",
    (
        "{name} has {a} {xs}. {other} has {b} more than {name}, and {third} has {c} fewer than {other}. "
        "How many {xs} do the three have in all?",
        "{name} owns {a} {xs}; {other} owns {b} more than {name}; {third} owns {c} fewer than {other}. "
        "What do the three own together?",
        "{name} packs {a} {xs}, {other} packs {b} more than {name}, and {third} packs {c} fewer than {other}. "
        "How many {xs} do they pack in all?",
    ),
    ("All three make {answer} {xs}.", "In all it is {answer} {xs}."),
)
TIMES = Template(
    "compare_times",
    (
        "{name} has {a} {xs}. {other} has {b} times as many as {name}. {third} has {c} fewer than {other}, and "
        "{fourth} has {d} more than {third}. How many {xs} do all four have?",
        "Counting their {xs}, {name} finds {a}, {other} {b} times as many as {name}, {third} {c} fewer than {other}, "
        "and {fourth} {d} more than {third}. How many are there in all?",
    ),
    ("All four have {answer} {xs}.",),
)
MEAN = Template(
    "mean",
    (
        "What is the average of {list}?",
        "{name} scored {list} points in the games of a week. What is the mean score?",
        "Find the mean of these numbers: {list}.",
    ),
    ("The average is {answer}.", "The mean is {answer}."),
)
MISSING = Template(
    "missing",
    (
        "The average of {k} numbers is {mean}. All but one of them are {list}. What is the missing number?",
        "For {k} tests {name} wants a mean of {mean}. So far the marks are {list}. "
        "Which mark is needed in the last test?",
        "{k} numbers have the mean {mean}. All of them but the last are {list}. What is the last one?",
    ),
    ("The missing number is {answer}.", "It must be {answer}."),
)
VEHICLES = ("train", "car", "bus", "cyclist", "boat", "truck")


def _shopping(rng: random.Random, level: int) -> Draw:
    (x, xs), (y, ys) = rng.sample(THINGS, 2)
    top = (9, 12, 15, 19)[level - 1]
    n, p, m, q = rng.randint(2, 9), rng.randint(2, top), rng.randint(2, 9), rng.randint(2, top)
    fields: dict[str, object] = {"one": _a(x).capitalize(), "two": _a(y), "xs": xs, "ys": ys, "name": rng.choice(NAMES)}
    fields |= {"n": str(n), "p": str(p), "m": str(m), "q": str(q)}
    if level == 1:
        return ask(rng, COST, fields, (n, p), (f"One costs {p}: {multiply(n, p)}.",), n * p)
    if level == 2:
        steps = [f"The {xs}: {multiply(n, p)}.", f"With {_a(y)}: {add(n * p, q)}."]
        return ask(rng, BASKET, fields, (n, p, q), steps, n * p + q)
    total = n * p + m * q
    steps = [f"The {xs}: {multiply(n, p)}.", f"The {ys}: {multiply(m, q)}.", f"Together {add(n * p, m * q)}."]
    if level == 3:
        paid = _note(total, rng)
        steps = [*steps, f"Of {paid}: {subtract(paid, total)}."]
        return ask(rng, CHANGE, {**fields, "paid": paid}, (n, p, m, q, paid), steps, paid - total)
    off = rng.randint(2, min(20, total - 1))
    paid = _note(total - off, rng)
    steps = [*steps, f"Less {off}: {subtract(total, off)}.", f"Of {paid}: {subtract(paid, total - off)}."]
    return ask(rng, DISCOUNT, {**fields, "off": off, "paid": paid}, (n, p, m, q, off, paid), steps, paid - total + off)


def _a(thing: str) -> str:
    return f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}"


def _note(total: int, rng: random.Random) -> int:
    """Return a sum that is paid with, more than `total`."""
    return total - total % 10 + rng.choice((10, 20, 30))


def _sharing(rng: random.Random, level: int) -> Draw:
    _, xs = rng.choice(THINGS)
    _, boxes = rng.choice(CONTAINERS)
    k = rng.randint(2, 9)
    each = rng.randint((2, 10, 2, 2)[level - 1], (9, 30, 40, 12)[level - 1])
    fields: dict[str, object] = {"xs": xs, "boxes": boxes, "name": rng.choice(NAMES), "k": k}
    if level <= 2:
        n = k * each
        steps = [f"{n} {xs} for {k}: {divide(n, k)}."]
        return ask(rng, EACH, {**fields, "n": n}, (n, k), steps, each)
    if level == 3:
        m = rng.randint(3, 30)
        n = k * each + m
        steps = [f"To share: {subtract(n, m)}.", f"Each: {divide(n - m, k)}."]
        return ask(rng, EACH_AFTER, {**fields, "n": n, "m": m}, (n, m, k), steps, each)
    n, m, extra = rng.randint(3, 9), rng.randint(6, 19), rng.randint(2, 19)
    k = rng.randint(3, 9)
    total = n * m + extra
    steps = [f"In the {boxes}: {multiply(n, m)}.", f"All: {add(n * m, extra)}."]
    left = total
    for each in (total // k // 10 * 10, total // k % 10):
        if each:
            steps.append(f"Of {left}: {multiply(k, each)}, {subtract(left, k * each)}.")
            left -= k * each
    return ask(rng, LEFT_OVER, {**fields, "k": k, "n": n, "m": m, "extra": extra}, (n, m, extra, k), steps, total % k)


def _times_in(whole: int, part: int) -> list[str]:
    """Work out how often `part` goes into `whole`, less than ten times: five of it, then two, then one."""
    steps, counts, left = [], [], whole
    while left:
        count = next(count for count in (5, 2, 1) if count * part <= left)
        steps.append(f"Of {left}: {multiply(count, part)}, {subtract(left, count * part)}.")
        counts.append(count)
        left -= count * part
    return [*steps, f"{' + '.join(map(str, counts))} = {sum(counts)}."] if len(counts) > 1 else steps


def _rates(rng: random.Random, level: int) -> Draw:
    name, other = two_names(rng)
    _, xs = rng.choice(THINGS)
    fields: dict[str, object] = {"vehicle": rng.choice(VEHICLES), "name": name, "other": other, "xs": xs}
    v, w = 5 * rng.randint(2, 20), 5 * rng.randint(2, 20)
    t, u = rng.randint(2, 9), rng.randint(2, 9)
    if level == 1:
        v = 10 * rng.randint(1, 12)
        fields |= {"v": v, "t": t}
        return ask(rng, DISTANCE, fields, (v, t), (f"{v} km each hour, {t} hours: {multiply(v, t)}.",), v * t)
    if level == 2:
        fields |= {"d": v * t, "v": v}
        steps = [f"{v} km take one hour.", *_times_in(v * t, v)]
        return ask(rng, DURATION, fields, (v * t, v), steps, t)
    if level == 3:
        fields |= {"v": v, "t": t, "w": w, "u": u}
        steps = [f"First {multiply(v, t)} km.", f"Then {multiply(w, u)} km.", f"In all {add(v * t, w * u)} km."]
        return ask(rng, LEGS, fields, (v, t, w, u), steps, v * t + w * u)
    v, w = rng.randint(6, 60), rng.randint(6, 60)
    total = v + w
    fields |= {"v": v, "w": w, "d": total * t}
    steps = [f"Together they do {add(v, w)} in one.", *_times_in(total * t, total)]
    return ask(rng, TOGETHER, fields, (v, w, total * t), steps, t)


def _compare(rng: random.Random, level: int) -> Draw:
    names = rng.sample(NAMES, 4)
    _, xs = rng.choice(THINGS)
    fields: dict[str, object] = {"xs": xs, **dict(zip(("name", "other", "third", "fourth"), names, strict=True))}
    if level == 1:
        b = rng.randint(1, 12)
        a = b + rng.randint(1, 12)
        fields |= {"a": a, "b": b}
        return ask(rng, DIFFERENCE, fields, (a, b), (f"{names[0]} {a}, {names[1]} {b}: {subtract(a, b)}.",), a - b)
    a, b = rng.randint(4, 60), rng.randint(2, 40)
    second = a + b
    if level == 2:
        fields |= {"a": a, "b": b}
        steps = [f"{names[1]} has {add(a, b)}.", f"Together {add(a, second)}."]
        return ask(rng, MORE, fields, (a, b), steps, a + second)
    if level == 3:
        c = rng.randint(1, second - 1)
        fields |= {"a": a, "b": b, "c": c}
        steps = [
            f"{names[1]} has {add(a, b)}.",
            f"{names[2]} has {subtract(second, c)}.",
            f"First two: {add(a, second)}.",
            f"All three: {add(a + second, second - c)}.",
        ]
        return ask(rng, CHAIN, fields, (a, b, c), steps, a + 2 * second - c)
    a, b = rng.randint(4, 25), rng.randint(2, 5)
    second = a * b
    c, d = rng.randint(1, second - 1), rng.randint(2, 30)
    third = second - c
    fields |= {"a": a, "b": b, "c": c, "d": d}
    steps = [
        f"{names[1]} has {multiply(b, a)}.",
        f"{names[2]} has {subtract(second, c)}.",
        f"{names[3]} has {add(third, d)}.",
        f"First two: {add(a, second)}. Last two: {add(third, third + d)}.",
        f"All: {add(a + second, 2 * third + d)}.",
    ]
    return ask(rng, TIMES, fields, (a, b, c, d), steps, a + second + 2 * third + d)


def _average(rng: random.Random, level: int) -> Draw:
    name = rng.choice(NAMES)
    count = (2, 3, 4, 5)[level - 1]
    mean = rng.randint(5, (12, 25, 60, 60)[level - 1])
    values = [mean] * count
    for i in range(count - 1):
        shift = rng.randint(1, max(1, mean // 3))
        values[i], values[i + 1] = values[i] - shift, values[i + 1] + shift
    rng.shuffle(values)
    if level == 4 and rng.random() < 0.5:
        return _missing(rng, name, mean, values)
    total, steps = values[0], []
    for value in values[1:]:
        steps.append(f"{add(total, value)}.")
        total += value
    steps = [f"The sum: {steps[0]}", *steps[1:], f"There are {count} numbers: {divide(total, count)}."]
    listed = ", ".join(map(str, values))
    return ask(rng, MEAN, {"name": name, "list": listed}, sorted(values), steps, mean)


def _missing(rng: random.Random, name: str, mean: int, values: list[int]) -> Draw:
    *known, last = values
    total, steps = known[0], [f"All {len(values)} make {multiply(mean, len(values))}."]
    for value in known[1:]:
        steps.append(f"{add(total, value)}.")
        total += value
    steps.append(f"Missing: {subtract(mean * len(values), total)}.")
    listed = ", ".join(map(str, known))
    fields: dict[str, object] = {"name": name, "list": listed, "k": len(values), "mean": mean}
    return ask(rng, MISSING, fields, (mean, *sorted(known)), steps, last)


KINDS = (
    Kind("shopping", _shopping),
    Kind("sharing", _sharing),
    Kind("rates", _rates),
    Kind("compare", _compare),
    Kind("average", _average),
)
