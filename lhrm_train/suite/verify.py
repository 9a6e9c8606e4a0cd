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


def _columns(item: Item, pattern: re.Pattern[str], sign: str) -> str | None:
    match = pattern.search(item.question)
    if match is None or str(_operate(int(match[1]), sign, int(match[2]))) != item.answer:
        return "wrong answer"
    steps = item.trace.split(",")
    if [step[:1] for step in steps] != list(ALPHABET[: len(steps)]):
        return "columns out of order"
    problem = _false_step(",".join(step[1:] for step in steps))
    if problem is None and _column_digits(item.trace) != item.answer:
        problem = "columns do not give the answer"
    return problem


def _add(item: Item) -> str | None:
    return _columns(item, _SUM, "+")


def _multiply(item: Item) -> str | None:
    return _columns(item, _PRODUCT, "*")


def _chain(item: Item) -> str | None:
    start, *rest = re.findall(r"\d+|add|times", item.question)
    value = int(start)
    for name, operand in zip(rest[::2], rest[1::2], strict=True):
        value = _operate(value, "+" if name == "add" else "*", int(operand)) % 10
    ends = item.trace.endswith(f"={item.answer}")
    return _false_step(item.trace, 10) or (None if str(value) == item.answer and ends else "wrong answer")


def _story(item: Item) -> str | None:
    words = re.findall(r"(has|buys|finds|gets|sells|loses|gives away) (\d+)", item.question)
    value = sum(int(n) * (-1 if word in ("sells", "loses", "gives away") else 1) for word, n in words)
    ends = item.trace.endswith(f"={item.answer}")
    return _false_step(item.trace) or (None if str(value) == item.answer and ends else "wrong answer")


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


def _contains(item: Item) -> str | None:
    text = _capitals(item)
    wanted = re.findall(r"(?<![A-Z])[A-Z](?![A-Za-z])", item.question)[-1]
    answer = "yes" if wanted in text else "no"
    steps = ",".join(f"{letter}{'=' if letter == wanted else '-'}{wanted}" for letter in text)
    return None if item.answer == answer and item.trace == f"{steps};{answer}" else "wrong search"


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
    "multiply": _multiply,
    "chain": _chain,
    "story": _story,
    "cups": _cups,
    "reverse": _reverse,
    "letter": _letter,
    "count": _count,
    "contains": _contains,
    "extreme": _extreme,
    "parity": _parity,
    "facts": _fact,
    "smalltalk": _smalltalk,
}
