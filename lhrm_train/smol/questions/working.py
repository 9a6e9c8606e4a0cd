"""Written arithmetic on whole numbers: chains of equalities whose every member has the same value."""

from __future__ import annotations

# What is one step: a number with one digit added or taken away, sums without a carry, differences without a borrow, and
# what the times tables hold.
DIRECT_PRODUCT, DIRECT_QUOTIENT = 60, 12


def add(a: int, b: int) -> str:
    """Return `a + b` worked out by places, both not negative."""
    pairs = list(zip(_places(a, b), _places(b, a), strict=True))
    carries = any(_digit(x) + _digit(y) > 9 for x, y in pairs)
    if min(a, b) < 10 or not carries:
        return f"{a} + {b} = {a + b}"
    return " = ".join([f"{a} + {b}", *_summed([x + y for x, y in pairs if x + y])])


def subtract(a: int, b: int) -> str:
    """Return `a - b` worked out place by place of `b`, for 0 <= b <= a."""
    borrows = any(_digit(x) < _digit(y) for x, y in zip(_places(a, b), _places(b, a), strict=True))
    if b < 10 or not borrows:
        return f"{a} - {b} = {a - b}"
    members, rest = [f"{a} - {b}"], b
    for place in _parts(b)[:-1]:
        a, rest = a - place, rest - place
        members.append(f"{a} - {rest}")
    return " = ".join([*members, str(a - rest)])


def multiply(a: int, b: int) -> str:
    """Return `a * b`, worked out by the places of both where the product is not known by heart."""
    pairs = [(x, y) for x in _parts(a) for y in _parts(b)]
    if a * b <= DIRECT_PRODUCT or max(a, b) < 10 or {a, b} & {1, 10, 100, 1000} or len(pairs) == 1:
        return f"{a} * {b} = {a * b}"
    products = " + ".join(f"{x} * {y}" for x, y in pairs)
    return " = ".join([f"{a} * {b}", products, *_summed([x * y for x, y in pairs])])


def divide(a: int, b: int) -> str:
    """Return `a / b`, which must be whole, worked out by the places of the quotient."""
    quotient = a // b
    parts = _parts(quotient)
    if quotient <= DIRECT_QUOTIENT or a <= DIRECT_PRODUCT or len(parts) < 2 or b in (1, 10, 100):
        return f"{a} / {b} = {quotient}"
    split = " + ".join(f"{part * b} / {b}" for part in parts)
    return " = ".join([f"{a} / {b}", split, *_summed(parts)])


def operate(a: int, sign: str, b: int) -> tuple[str, int]:
    """Return the working and the value of `a sign b`, sign one of + - * /; of the first two `a` may be negative."""
    values = {"+": a + b, "-": a - b, "*": a * b, "/": a // b if b else 0}
    working = {"+": add, "-": subtract, "*": multiply, "/": divide}
    if sign in "+-" and min(a, values[sign]) < 0:
        return _below_zero(a, sign, b), values[sign]
    return working[sign](a, b), values[sign]


def _below_zero(a: int, sign: str, b: int) -> str:
    """Return `a + b` or `a - b` where `a` or the result is negative, by a sum or difference of positive numbers."""
    if sign == "+" and b >= -a:
        return f"{a} + {b} = {subtract(b, -a)}"
    value = a + b if sign == "+" else a - b
    positive = subtract(-a, b) if sign == "+" else add(-a, b) if a < 0 else subtract(b, a)
    return f"{positive}, so {a} {sign} {b} = {value}"


def _places(number: int, like: int) -> list[int]:
    """Return hundreds, tens and ones as numbers, as many places as the longer of both has."""
    width = max(len(str(number)), len(str(like)))
    return [int(digit) * 10 ** (width - 1 - i) for i, digit in enumerate(str(number).zfill(width))]


def _parts(number: int) -> list[int]:
    """Return the places of `number` that are not zero."""
    return [part for part in _places(number, number) if part]


def _summed(parts: list[int]) -> list[str]:
    """Return the sum of two or more `parts`, then with the first two added, and so on down to one number."""
    members = []
    while len(parts) > 1:
        members.append(" + ".join(map(str, parts)))
        parts = [parts[0] + parts[1], *parts[2:]]
    return [*members, str(parts[0])]


def _digit(place: int) -> int:
    return int(str(place)[0])
