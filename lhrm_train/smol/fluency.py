"""Simple rules for an everyday answer: which of the base's answers are learnt, and which rollouts count as good."""

from __future__ import annotations

import re
from collections import Counter

from lhrm_train.problems import Problem

SHORTEST, LONGEST = 2, 900  # characters
SHORTEST_PART = 60  # characters that must be left of an answer that was cut
SHORTEST_COPY = 2  # words
REPEATED_WORDS = 4  # a run of so many words may not occur three times
MOST_SAME_LINES = 1
# A base that speaks of itself, of its makers or of its instructions.
ECHO = re.compile(
    r"\b(SmolLM\w*|Hugging ?Face|language model|AI (?:language )?(?:model|assistant)|system prompt|as an AI|OpenAI"
    r"|ChatGPT|my instructions)\b",
    re.IGNORECASE,
)
MARKUP = re.compile(r"<\|?\w+\|?>|</\w+>|\[INST\]|^(?:user|assistant|system)\b:?\s*$", re.IGNORECASE | re.MULTILINE)
_FINISHED = re.compile(r"[.!?)\"'\u2019\u201d\u2026*`~:;]\s*$|[\U0001f300-\U0001faff\u2600-\u27bf\ufe0f]\s*$")
_LIST_ITEM = re.compile(r"^\s*(?:[-*\u2022]|\d+[.)])\s+\S")
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")


def fault(prompt: str, answer: str) -> str:
    """Return what is wrong with an everyday answer, empty where nothing is. Whether it is true is not looked at."""
    text = answer.strip()
    if not SHORTEST <= len(text) <= LONGEST:
        return "length"
    if MARKUP.search(text):
        return "markup"
    if ECHO.search(text) and not ECHO.search(prompt):
        return "echo"
    if _copied(prompt, text):
        return "copy"
    if _repeats(text):
        return "repetition"
    return "" if _finished(text) else "unfinished"


def finished_part(text: str) -> str:
    """Return an answer that was cut, up to its last whole list item or sentence; empty where hardly any is left."""
    lines = text.splitlines() or [""]
    last = lines.pop()
    if not _LIST_ITEM.match(last):
        lines.append(last[: max(last.rfind(mark) for mark in (". ", "! ", "? ")) + 1])
    while lines and (not lines[-1].strip() or lines[-1].rstrip().endswith(":")):
        lines.pop()  # what was to be followed by a list
    part = "\n".join(lines).strip()
    return part if len(part) >= SHORTEST_PART else ""


def fluent(problem: Problem, answer: str) -> float:
    """Scorer of everyday prompts: 1 where no rule is broken, else 0.

    Both modes can reach 1, so they tie and the tie goes to no-think.
    """
    return float(not fault(problem.question, answer))


def _finished(text: str) -> bool:
    """A sentence has its end; a single short line or a list may go without."""
    last = text.splitlines()[-1]
    short = len(_WORD.findall(text)) <= 6 and "," not in text
    return bool(_FINISHED.search(last) or _LIST_ITEM.match(last) or short)


def _copied(prompt: str, text: str) -> bool:
    """An answer of some words that is the prompt or a part of it; a word of the prompt may be its answer."""
    words = _same_words(text)
    return len(words) >= SHORTEST_COPY and f" {' '.join(words)} " in f" {' '.join(_same_words(prompt))} "


def _same_words(text: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(text)]


def _repeats(text: str) -> bool:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if max(Counter(lines).values()) > MOST_SAME_LINES:
        return True
    words = _same_words(text)
    runs = Counter(tuple(words[i : i + REPEATED_WORDS]) for i in range(len(words) - REPEATED_WORDS + 1))
    return bool(runs) and max(runs.values()) > 2
