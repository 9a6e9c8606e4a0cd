"""Scorer `numeric`: the last number of the answer has the reference's value."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from lhrm_train.problems import Problem
from lhrm_train.rewards.base import ScoreError

# U+2212 and U+2013 are the minus signs of typeset text.
_MINUS = "-\u2212\u2013"
_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)"
_DECIMAL = rf"(?:{_DIGITS}(?:\.[0-9]+)?|\.[0-9]+)"
_TIMES_TEN = rf"\s*(?:[x*\u00d7\u00b7]|\\times|\\cdot)\s*10\s*(?:\^|\*\*)\s*\{{?(?P<power>[{_MINUS}+]?[0-9]+)\}}?"
_NUMBER = re.compile(
    # A sign after a word, a digit or a closing bracket is a minus between two numbers, or a hyphen.
    rf"(?P<sign>(?<![\w)\]}}])[{_MINUS}+])?(?:\\?[$\u20ac\u00a3\u00a5])?"
    rf"(?<![A-Za-z_0-9])(?:"
    rf"\\[dt]?frac\s*\{{\s*(?P<top>[{_MINUS}]?{_DECIMAL})\s*\}}\s*\{{\s*(?P<bottom>{_DECIMAL})\s*\}}"
    rf"|(?P<value>{_DECIMAL})(?:[eE](?P<exponent>[{_MINUS}+]?[0-9]+)|{_TIMES_TEN}|\s*/\s*(?P<divisor>{_DECIMAL}))?"
    rf")(?P<percent>\s*\\?%)?"
)
_AS_ASCII = str.maketrans({"\u2212": "-", "\u2013": "-", ",": None})


@dataclass(frozen=True)
class _Number:
    """A number as it was written; `digits` is set for whole numbers only, so that these compare exactly."""

    value: float
    percent: bool
    digits: str | None


def _read(match: re.Match[str]) -> _Number | None:
    part = {name: text.translate(_AS_ASCII) for name, text in match.groupdict(default="").items()}
    negative = part["sign"] == "-"
    top, bottom = part["top"] or part["value"], part["bottom"] or part["divisor"]
    power = part["exponent"] or part["power"]
    value = float(f"{top}e{power}" if power else top) * (-1 if negative else 1)
    if bottom:
        if float(bottom) == 0:
            return None
        value /= float(bottom)
    whole = not bottom and not power and "." not in top
    digits = top.lstrip("0")
    signed = f"-{digits}" if negative and digits else digits
    return _Number(value, bool(part["percent"]), signed if whole else None)


def _same(answer: _Number, reference: _Number, tolerance: float) -> bool:
    if answer.percent == reference.percent and answer.digits is not None and reference.digits is not None:
        return answer.digits == reference.digits
    scales = (1.0,) if answer.percent == reference.percent else (1.0, 100.0 if reference.percent else 0.01)
    if math.isinf(reference.value):
        return False  # the limit would be infinite too, and every answer within it
    limit = tolerance * abs(reference.value)
    return any(abs(answer.value * scale - reference.value) <= limit for scale in scales)


@dataclass(frozen=True)
class Numeric:
    """Compares the last number of the answer with the only number of the reference.

    A number is: an optional sign, an optional currency sign, then a whole or decimal number with or without
    commas between thousands, or ``\\frac{a}{b}``. After it may come an exponent (``e5``, ``x 10^5``) or a divisor
    (``/b``), then a percent sign. Digits glued to a letter before them (``x2``) are no number, nor is a division
    by zero. A mixed number (``1 1/2``) counts as two numbers; other formulae are not computed (see `math`).

    Two whole numbers must be equal digit by digit. Otherwise |answer - reference| <= `tolerance` * |reference|.
    A percent sign on one side only may be meant as hundredths or not: 50% equals both 50 and 0.5.
    """

    tolerance: float

    def __call__(self, problem: Problem, answer: str) -> float:
        """Return 1 or 0. Raises ScoreError when the reference does not hold exactly one number."""
        found = [_read(match) for match in _NUMBER.finditer(problem.reference)]
        if len(found) != 1 or found[0] is None:
            raise ScoreError(f"scorer 'numeric': reference {problem.reference!r} does not hold exactly one number")
        numbers = [number for match in _NUMBER.finditer(answer) if (number := _read(match)) is not None]
        return float(bool(numbers) and _same(numbers[-1], found[0], self.tolerance))
