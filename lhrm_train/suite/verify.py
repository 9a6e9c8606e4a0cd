"""Independent check that a trace holds only true steps and ends in the reference answer."""

from __future__ import annotations

import re

from lhrm_train.suite.base import ALPHABET
from lhrm_train.suite.mix import Item

_STEP = re.compile(r"(\d+)([+*-])(\d+)(?:\+(\d+))?=(\d+)(?:\+(\d+)=(\d+))?")
_SUM = re.compile(r"(\d+)\s*(?:\+|plus|and)\s*(\d+)")
_PRODUCT = re.compile(r"(\d+)\s*(?:\*|times|by)\s*(\d+)")


class TraceError(ValueError):
    """A trace that states something false or does not lead to the answer."""


def verify(item: Item) -> None:
    """Recompute the answer from the question text and every step of the trace. Raises TraceError."""
    problem = _CHECKS[item.kind](item)
    if problem:
        raise TraceError(f"{item.kind} level {item.level}: {problem}: {item.question!r} {item.trace!r} {item.answer!r}")


def _operate(a: int, sign: str, b: int) -> int:
    return {"+": a + b, "-": a - b, "*": a * b}[sign]


def _false_step(trace: str, modulo: int | None = None) -> str | None:
    for step in trace.split(","):
        match = _STEP.fullmatch(step)
        if match is None:
            return f"unreadable step {step}"
        a, sign, b, extra, result, carry, total = match.groups()
        value = _operate(int(a), sign, int(b)) + int(extra or 0)
        if (value % modulo if modulo else value) != int(result):
            return f"false step {step}"
        if total is not None and value + int(carry) != int(total):
            return f"false step {step}"
    return None


def _column_digits(trace: str) -> str:
    totals = [step.rsplit("=", 1)[1] for step in trace.split(",")]
    return (totals[-1] + "".join(total[-1] for total in reversed(totals[:-1]))).lstrip("0") or "0"


def _false_lettered(steps: str, modulo: int | None = None) -> str | None:
    """Check steps that each begin with their letter, in order."""
    parts = steps.split(",")
    if [step[:1] for step in parts] != list(ALPHABET[: len(parts)]):
        return "letters out of order"
    return _false_step(",".join(step[1:] for step in parts), modulo)


def _columns(item: Item, steps: str, value: int) -> str | None:
    problem = _false_lettered(steps)
    if problem is None and not str(value) == item.answer == _column_digits(steps):
        problem = "wrong answer"
    return problem


def _named_digits(text: str) -> str:
    return "".join(f"{ALPHABET[len(text) - 1 - i]}{digit}" for i, digit in enumerate(text))


def _add(item: Item) -> str | None:
    match = _SUM.search(item.question)
    if match is None:
        return "unreadable question"
    restated, _, steps = item.trace.partition(";")
    if restated != f"{_named_digits(match[1])}+{_named_digits(match[2])}":
        return "wrong restatement"
    return _columns(item, steps, int(match[1]) + int(match[2]))


def _multiply(item: Item) -> str | None:
    match = _PRODUCT.search(item.question)
    return "unreadable question" if match is None else _columns(item, item.trace, int(match[1]) * int(match[2]))


def _lettered(item: Item, operations: list[tuple[str, int]], value: int, modulo: int | None) -> str | None:
    """Check a restatement of `operations`, its steps and the value they lead to."""
    restated, _, steps = item.trace.partition(";")
    named = [f"{letter}{sign}{n}" for letter, (sign, n) in zip(ALPHABET, operations, strict=False)]
    if restated != "".join(named):
        return "wrong restatement"
    right = str(value) == item.answer and steps.endswith(f"={item.answer}")
    return _false_lettered(steps, modulo) or (None if right else "wrong answer")


def _chain(item: Item) -> str | None:
    start, *rest = re.findall(r"\d+|add|times", item.question)
    operations = [("+" if name == "add" else "*", int(n)) for name, n in zip(rest[::2], rest[1::2], strict=True)]
    value = int(start)
    for sign, operand in operations:
        value = _operate(value, sign, operand) % 10
    return _lettered(item, operations, value, 10)


def _story(item: Item) -> str | None:
    (_, start), *events = re.findall(r"(has|buys|finds|gets|sells|loses|gives away) (\d+)", item.question)
    operations = [("-" if word in ("sells", "loses", "gives away") else "+", int(n)) for word, n in events]
    value = int(start) + sum(n if sign == "+" else -n for sign, n in operations)
    return _lettered(item, operations, value, None)


def _cups(item: Item) -> str | None:
    cup = re.findall(r"cup ([A-E])", item.question)[0]
    steps = []
    for a, b in re.findall(r"([A-E]) and ([A-E])", item.question):
        after = {a: b, b: a}.get(cup, cup)
        steps.append(f"{a}{b}:{cup}>{after}")
        cup = after
    return None if cup == item.answer and ",".join(steps) == item.trace else "wrong cup"


def _capitals(item: Item) -> str:
    return str(re.findall(r"[A-Z]{3,}", item.question)[-1])


def _spelled(text: str) -> str:
    return "".join(re.findall(r"\d([A-Z])", text))


def _reverse(item: Item) -> str | None:
    text, (forwards, backwards) = _capitals(item), item.trace.split(";")
    good = item.answer == text[::-1] == _spelled(backwards) and _spelled(forwards) == text
    return None if good else "wrong reversal"


def _letter(item: Item) -> str | None:
    text = _capitals(item)
    which = re.findall(r"first|second|last", item.question)[0]
    answer = text[{"first": 0, "second": 1, "last": -1}[which]]
    good = answer == item.answer and _spelled(item.trace) == text and item.trace.endswith(f"{which} is {answer}")
    return None if good else "wrong letter"


def _count(item: Item) -> str | None:
    text = _capitals(item)
    good = item.answer == str(len(text)) and _spelled(item.trace) == text and item.trace[-2:-1] == item.answer
    return None if good else "wrong count"


def _extreme(item: Item) -> str | None:
    pick = max if "largest" in item.question else min
    values = [int(n) for n in re.findall(r"\d+", item.question)]
    for step in item.trace.split(";"):
        a, b, kept = map(int, re.findall(r"\d", step))
        if pick(a, b) != kept:
            return f"false step {step}"
    return None if str(pick(values)) == item.answer == item.trace[-1] else "wrong choice"


def _parity(item: Item) -> str | None:
    answer = "odd" if int(re.findall(r"\d+", item.question)[0]) % 2 else "even"
    return None if answer == item.answer and item.trace.endswith(f"is {answer}.") else "wrong parity"


def _fact(item: Item) -> str | None:
    return None if f" is {item.answer}." in item.trace else "trace does not recall the answer"


def _smalltalk(item: Item) -> str | None:
    return None if item.trace and item.answer else "empty reply"


_CHECKS = {
    "add": _add,
    "add digit": _add,
    "multiply": _multiply,
    "chain": _chain,
    "story": _story,
    "cups": _cups,
    "reverse": _reverse,
    "letter": _letter,
    "count": _count,
    "extreme": _extreme,
    "parity": _parity,
    "facts": _fact,
    "smalltalk": _smalltalk,
}
