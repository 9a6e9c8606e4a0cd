"""Written arithmetic on whole numbers: chains of equalities whose every member has the same value."""

from __future__ import annotations

# What is one step: sums without a carry, differences without a borrow, and what the times tables hold.
DIRECT_SUM, DIRECT_PRODUCT, DIRECT_QUOTIENT = 100, 60, 12


def add(a: int, b: int) -> str:
    """Return `a + b` worked out by places, both not negative."""
    pairs = list(zip(_places(a, b), _places(b, a), strict=True))
    carries = any(_digit(x) + _digit(y) > 9 for x, y in pairs)
    if max(a, b) < DIRECT_SUM or min(a, b) < 10 or not carries:
        return f"{a} + {b} = {a + b}"
    return f"{a} + {b} = {' + '.join(str(x + y) for x, y in pairs if x + y)} = {a + b}"


def subtract(a: int, b: int) -> str:
    """Return `a - b` worked out place by place of `b`, for 0 <= b <= a."""
    borrows = any(_digit(x) < _digit(y) for x, y in zip(_places(a, b), _places(b, a), strict=True))
    if a < DIRECT_SUM or b < 10 or not borrows:
        return f"{a} - {b} = {a - b}"
    members, rest = [f"{a} - {b}"], b
    for place in [part for part in _places(b, b) if part][:-1]:
        a, rest = a - place, rest - place
        members.append(f"{a} - {rest}")
    return " = ".join([*members, str(a - rest)])


def multiply(a: int, b: int) -> str:
    """Return `a * b`, worked out by the places of one factor where the product is not known by heart."""
    if a * b <= DIRECT_PRODUCT or max(a, b) < 10 or {a, b} & {1, 10, 100, 1000}:
        return f"{a} * {b} = {a * b}"
    whole, other, left = (a, b, True) if b < 10 or _round(b) else (b, a, False)
    parts = [part for part in _places(whole, whole) if part]
    if len(parts) == 1:
        return f"{a} * {b} = {a * b}"
    products = " + ".join(f"{part} * {other}" if left else f"{other} * {part}" for part in parts)
    return f"{a} * {b} = {products} = {' + '.join(str(part * other) for part in parts)} = {a * b}"


def divide(a: int, b: int) -> str:
    """Return `a / b`, which must be whole, worked out by the places of the quotient."""
    quotient = a // b
    parts = [part for part in _places(quotient, quotient) if part]
    if quotient <= DIRECT_QUOTIENT or a <= DIRECT_PRODUCT or len(parts) < 2 or b in (1, 10, 100):
        return f"{a} / {b} = {quotient}"
    split = " + ".join(f"{part * b} / {b}" for part in parts)
    return f"{a} / {b} = {split} = {' + '.join(map(str, parts))} = {quotient}"


def operate(a: int, sign: str, b: int) -> tuple[str, int]:
    """Return the working and the value of `a sign b`, sign one of + - * /."""
    values = {"+": a + b, "-": a - b, "*": a * b, "/": a // b if b else 0}
    return {"+": add, "-": subtract, "*": multiply, "/": divide}[sign](a, b), values[sign]


def _places(number: int, like: int) -> list[int]:
    """Return hundreds, tens and ones as numbers, as many places as the longer of both has."""
    width = max(len(str(number)), len(str(like)))
    return [int(digit) * 10 ** (width - 1 - i) for i, digit in enumerate(str(number).zfill(width))]


def _round(number: int) -> bool:
    return str(number)[1:].strip("0") == ""


def _digit(place: int) -> int:
    return int(str(place)[0])
