"""Scorer `choice`: the letter or letters that answer a multiple-choice question."""

from __future__ import annotations

import re

from lhrm_train.problems import Problem
from lhrm_train.rewards.base import ScoreError

# "A" and "I" before a small-letter word other than these three are an article and a pronoun.
_CAPITAL = r"(?<![A-Za-z0-9_'])(?![AI] (?!(?:is|and|or)\b)[a-z])[A-Z](?![A-Za-z0-9_'\u2019])"
_AND = r"[)\]]?(?:\s*,\s*(?:and\s+)?|\s+and\s+|\s*&\s*)[(\[]?"
# Atomic, so that "A and B or C" is not read as "A": an alternative is no answer.
_LISTED = rf"(?>{_CAPITAL}(?:{_AND}{_CAPITAL})*)(?![)\]]?\s*(?:or\b|/)\s*[(\[]?{_CAPITAL})"
_ANY_LETTER = rf"[A-Za-z](?:{_AND}[A-Za-z])*"
_ALONE = re.compile(rf"[(\[]?(?P<letters>{_ANY_LETTER}|[A-Z]+)[)\]]?[.:]?")
_DECORATION = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}")
_BOXED = re.compile(r"\\boxed\s*\{(?P<letters>[^{}]*)\}")
_ANSWER = re.compile(rf"(?i:\banswers?\b(?:\s+(?:is|are|would be)\b)?\s*:?\s*)[(\[]?(?P<letters>{_LISTED})")
_OPTION = re.compile(rf"(?i:\b(?:option|choice)s?\b\s*:?\s*)[(\[]?(?P<letters>{_LISTED})")
_MARKED = re.compile(r"(?<!\w)[(\[](?P<letters>[A-Za-z])[)\]]|^(?P<start>[A-Z])[.):](?!\S)", re.MULTILINE)
_BARE = re.compile(rf"(?P<letters>{_CAPITAL})")


def _letters(text: str) -> frozenset[str] | None:
    match = _ALONE.fullmatch(text.strip())
    letters = _split(match["letters"]) if match else ""
    return frozenset(letters) if letters and len(set(letters)) == len(letters) else None


def _split(text: str) -> str:
    return re.sub(r"\band\b|[^A-Za-z]", "", text).upper()


def chosen(answer: str) -> frozenset[str] | None:
    """Return the capital letters that `answer` chooses, or None where that is unclear.

    The first of these that occurs decides: the last ``\\boxed{}``; an answer that is nothing but letters, of
    either case; letters after "answer"; after "option" or "choice"; a letter in brackets, or before a full
    stop, bracket or colon at the start of a line; a capital that stands alone. Two different readings of the
    kind that decides make the answer unclear.
    """
    text = re.sub(r"[*$`\"]", "", _DECORATION.sub(r"\1", answer)).strip()
    # Short runs of white space keep the patterns below linear in the length of the answer.
    text = re.sub(r"\s+", lambda run: "\n" if "\n" in run[0] else " ", text)
    boxed = _BOXED.findall(text)
    if boxed:
        return _letters(boxed[-1])
    alone = _letters(text)
    if alone is not None:
        return alone
    for pattern in (_ANSWER, _OPTION, _MARKED, _BARE):
        found = {frozenset(_split(match["letters"] or match["start"])) for match in pattern.finditer(text)}
        if found:
            return found.pop() if len(found) == 1 else None
    return None


def choice(problem: Problem, answer: str) -> float:
    """Return 1 when `answer` chooses just the letters of the reference (``B``, ``(b)``, ``A, C``), else 0.

    Raises ScoreError when the reference is not one or more letters.
    """
    reference = _letters(problem.reference)
    if reference is None:
        raise ScoreError(f"scorer 'choice': reference {problem.reference!r} is not a letter or a list of letters")
    return float(chosen(answer) == reference)
