"""Arithmetic in text: its value, and whether the equations that a text states are true."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from types import MappingProxyType

_NUMBER = r"\(?-?\d+(?:\.\d+)?\)?"
_MEMBER = rf"{_NUMBER}(?: [-+*/] {_NUMBER})*"
_CHAIN = re.compile(rf"(?<![\d.]){_MEMBER}(?: = {_MEMBER})+")
_OPERATIONS: Mapping[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = MappingProxyType(
    {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
)


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


def chains(trace: str) -> list[list[str]]:
    """Return the equations of `trace`, each as the members between its ="""
    return [match[0].split(" = ") for match in _CHAIN.finditer(trace)]


def without_equations(trace: str) -> str:
    """Return what `trace` says around its equations."""
    return _CHAIN.sub(" ", trace)


def false_equation(trace: str) -> str | None:
    """Return what is wrong with the equations in `trace`, None where all are true; every = must be part of one."""
    stated = chains(trace)
    if sum(len(members) - 1 for members in stated) != trace.count("="):
        return "an equation that cannot be read"
    for members in stated:
        try:
            values = {evaluate(member) for member in members}
        except ValueError as exc:
            return str(exc)
        if len(values) != 1:
            return f"false equation {' = '.join(members)}"
    return None
