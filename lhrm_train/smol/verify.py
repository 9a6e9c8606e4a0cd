"""Independent check that a question has the answer it claims, and that its trace holds only true steps.

The answer is recomputed from the text of the question, by the rule of its form; what a trace states is recomputed
from the trace. Nothing here is used to make questions.
"""

from __future__ import annotations

import ast
import re
from fractions import Fraction

from lhrm_train.smol.questions.base import Draw
from lhrm_train.smol.rules import NUMBER_RULES, numbers_in
from lhrm_train.smol.text_rules import TEXT_RULES

_NUMBER = r"\(?-?\d+(?:\.\d+)?\)?"
_MEMBER = rf"{_NUMBER}(?: [-+*/] {_NUMBER})*"
_CHAIN = re.compile(rf"(?<![\d.]){_MEMBER}(?: = {_MEMBER})+")
_OPERATIONS = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
}


class TraceError(ValueError):
    """A question, trace or answer that states something false."""


def verify(draw: Draw) -> None:
    """Check `draw`. Raises TraceError naming its form, what is wrong, question, trace and answer."""
    problem = _false_equation(draw.trace) or _wrong_ending(draw) or _wrong_answer(draw) or _wrong_sentence(draw)
    if problem:
        raise TraceError(f"{draw.form}: {problem}: {draw.question!r} {draw.trace!r} {draw.answer!r}")


def evaluate(expression: str) -> Fraction:
    """Return the value of an expression of numbers, + - * / and brackets. Raises ValueError for anything else."""
    try:
        return _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, ZeroDivisionError) as exc:
        raise ValueError(f"{expression!r} has no value: {exc}") from exc


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return Fraction(str(node.value))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        return _OPERATIONS[type(node.op)](_value(node.left), _value(node.right))
    raise ValueError(f"{ast.unparse(node)!r} is not arithmetic")


def _false_equation(trace: str) -> str | None:
    chains = [match[0] for match in _CHAIN.finditer(trace)]
    if sum(chain.count("=") for chain in chains) != trace.count("="):
        return "an equation that cannot be read"
    for chain in chains:
        try:
            values = {evaluate(member) for member in chain.split("=")}
        except ValueError as exc:
            return str(exc)
        if len(values) != 1:
            return f"false equation {chain}"
    return None


def _wrong_ending(draw: Draw) -> str | None:
    ends = re.search(rf"(?:^|[ ]){re.escape(draw.answer)}\.$", draw.trace)
    return None if ends else "the trace does not end in the answer"


def _wrong_answer(draw: Draw) -> str | None:
    rule = NUMBER_RULES.get(draw.form)
    if rule is not None:
        expected = str(rule(draw.question))
        return None if draw.answer == expected else f"the answer is {expected}"
    return TEXT_RULES[draw.form](draw.question, draw.trace, draw.answer)


def _wrong_sentence(draw: Draw) -> str | None:
    """A sentence is scored by its last number."""
    if not draw.sentence:
        return None
    found = numbers_in(draw.sentence)
    return None if found and str(found[-1]) == draw.answer else f"the sentence says {draw.sentence!r}"
