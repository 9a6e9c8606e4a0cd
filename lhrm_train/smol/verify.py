"""Independent check that a question has the answer it claims, and that its trace holds only true steps.

The answer is recomputed from the text of the question, by the rule of its form; what a trace states is recomputed
from the trace. Nothing here is used to make questions.
"""

from __future__ import annotations

import re

from lhrm_train.smol.equations import false_equation
from lhrm_train.smol.operands import unfounded, wrong_last
from lhrm_train.smol.questions.base import Draw
from lhrm_train.smol.rules import NUMBER_RULES
from lhrm_train.smol.text_rules import TEXT_RULES
from lhrm_train.smol.trace_rules import TRACE_RULES


class TraceError(ValueError):
    """A question, trace or answer that states something false."""


def verify(draw: Draw) -> None:
    """Check `draw`. Raises TraceError naming its form, what is wrong, question, trace and answer."""
    problem = (
        false_equation(draw.trace)
        or _wrong_ending(draw)
        or _wrong_answer(draw)
        or _wrong_words(draw)
        or unfounded(draw.form, draw.question, draw.trace)
        or _wrong_sentence(draw)
    )
    if problem:
        raise TraceError(f"{draw.form}: {problem}: {draw.question!r} {draw.trace!r} {draw.answer!r}")


def _wrong_ending(draw: Draw) -> str | None:
    ends = re.search(rf"(?:^|[ ]){re.escape(draw.answer)}\.$", draw.trace)
    return None if ends else "the trace does not end in the answer"


def _wrong_answer(draw: Draw) -> str | None:
    rule = NUMBER_RULES.get(draw.form)
    if rule is not None:
        expected = str(rule(draw.question))
        return wrong_last(draw.form, draw.trace, expected) if draw.answer == expected else f"the answer is {expected}"
    return TEXT_RULES[draw.form](draw.question, draw.trace, draw.answer)


def _wrong_words(draw: Draw) -> str | None:
    rule = TRACE_RULES.get(draw.form)
    return rule(draw.question, draw.trace) if rule else None


def _wrong_sentence(draw: Draw) -> str | None:
    """A sentence is scored by its last number."""
    if not draw.sentence:
        return None
    found = re.findall(r"-?\d+", draw.sentence)
    return None if found and found[-1] == draw.answer else f"the sentence says {draw.sentence!r}"
