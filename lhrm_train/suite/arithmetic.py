"""Addition of two integers, multiplication by one digit, and chains of operations modulo ten.

Traces of sums and products go column by column from the right; a letter names the column (A is the units), so
that a repeated digit is not mistaken for its neighbour. Sums and chains first restate the question with those letters.
"""

from __future__ import annotations

import random

from lhrm_train.suite.base import ALPHABET, Draw, Kind, number

ADD_PHRASES = ("What is {}+{}?", "What is {} + {}?", "Add {} and {}.", "{} + {} = ?")
MULTIPLY_PHRASES = ("What is {}*{}?", "What is {} * {}?", "Multiply {} by {}.")
CHAIN_PHRASES = ("Start at {}, {}. Last digit?", "Begin with {}, {}. Keep the last digit.")
CHAIN_STEPS = {1: 1, 2: 3, 3: 4, 4: 6, 5: 8}


# Two-digit sums and products can half be learned by heart, so they are only a part of level 2.
TWO_DIGIT_SUMS, TWO_DIGIT_PRODUCTS = 0.15, 0.3
# Sums of two numbers that are not equally long; a single digit is added to a long number in a few of them only, because
# such a sum is often right without a scratchpad, and often not.
MIXED_LENGTHS, MIXED_WITH_ONE_DIGIT = 0.3, 0.15


def _digits(rng: random.Random, level: int, two: float) -> int:
    return rng.choices((2, 3), (two, 1 - two))[0] if level == 2 else level


def _other_digits(rng: random.Random, digits: int) -> int:
    """Draw the length of the number that is added to one of `digits` digits."""
    if digits == 1 or rng.random() >= MIXED_LENGTHS:
        return digits
    return 1 if digits == 2 or rng.random() < MIXED_WITH_ONE_DIGIT else rng.randrange(2, digits)


def _named_digits(value: int) -> str:
    """Write 348 as C3B4A8."""
    text = str(value)
    return "".join(f"{ALPHABET[place]}{digit}" for place, digit in zip(reversed(range(len(text))), text, strict=True))


def _add(rng: random.Random, level: int) -> Draw:
    digits = _digits(rng, level, TWO_DIGIT_SUMS)
    a, b = number(rng, digits), number(rng, _other_digits(rng, digits))
    return _sum(rng, a, b)


def _add_digit(rng: random.Random, level: int) -> Draw:
    return _sum(rng, number(rng, level), number(rng, 1))


def _sum(rng: random.Random, a: int, b: int) -> Draw:
    think_only = min(a, b) < 10 <= max(a, b)
    if rng.random() < 0.5:
        a, b = b, a
    carry, steps = 0, []
    for place in range(max(len(str(a)), len(str(b)))):
        x, y = a // 10**place % 10, b // 10**place % 10
        total = x + y + carry
        steps.append(f"{ALPHABET[place]}{x}+{y}+{carry}={total:02d}")
        carry = total // 10
    trace = f"{_named_digits(a)}+{_named_digits(b)};{','.join(steps)}"
    return Draw(f"add {min(a, b)} {max(a, b)}", rng.choice(ADD_PHRASES).format(a, b), str(a + b), trace, think_only)


def _multiply(rng: random.Random, level: int) -> Draw:
    digits = _digits(rng, level, TWO_DIGIT_PRODUCTS)
    a, b = number(rng, digits), rng.randrange(0 if level == 1 else 2, 10)
    carry, steps = 0, []
    for place in range(digits):
        digit = a // 10**place % 10
        total = digit * b + carry
        steps.append(f"{ALPHABET[place]}{digit}*{b}={digit * b:02d}+{carry}={total:02d}")
        carry = total // 10
    return Draw(f"multiply {a} {b}", rng.choice(MULTIPLY_PHRASES).format(a, b), str(a * b), ",".join(steps))


def _chain(rng: random.Random, level: int) -> Draw:
    value = start = rng.randrange(10)
    asked, named, steps = [], [], []
    # No operand occurs twice, so that each points to one place in the question.
    for letter, operand in zip(ALPHABET, rng.sample(range(1, 10), CHAIN_STEPS[level]), strict=False):
        times = operand in (3, 7) and rng.random() < 0.7
        asked.append(f"{'times' if times else 'add'} {operand}")
        named.append(f"{letter}{'*' if times else '+'}{operand}")
        result = (value * operand if times else value + operand) % 10
        steps.append(f"{letter}{value}{'*' if times else '+'}{operand}={result}")
        value = result
    question = rng.choice(CHAIN_PHRASES).format(start, ", ".join(asked))
    return Draw(f"chain {start} {asked}", question, str(value), f"{''.join(named)};{','.join(steps)}")


ADD = Kind("add", _add, levels=(1, 2, 3, 4, 5), closed_levels=(1,))
ADD_DIGIT = Kind("add digit", _add_digit, levels=(3, 4, 5))
MULTIPLY = Kind("multiply", _multiply, levels=(1, 2, 3, 4), closed_levels=(1,))
CHAIN = Kind("chain", _chain, levels=(1, 2, 3, 4, 5), closed_levels=(1,))
