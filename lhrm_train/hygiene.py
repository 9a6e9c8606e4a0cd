"""Remove duplicates and test questions from data before training, and count what was removed."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from lhrm_train.config import ConfigError, DataConfig, Fields
from lhrm_train.format import Message
from lhrm_train.problems import Demonstration, Problem
from lhrm_train.sources import normalise, read_problems

Item = TypeVar("Item", Problem, Demonstration)
# Thai, Lao, Tibetan, Burmese, Khmer, kana and Han put no space between words: there a character is a word. Signs that
# stand above or below a letter are characters of their own.
UNSPACED = (
    "\u0e00-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
WORD = re.compile(f"[{UNSPACED}]|[^\\W{UNSPACED}]+")


@dataclass(frozen=True)
class CleaningReport:
    """Numbers of items: ``read = duplicates + contaminated + kept``; duplicates go first."""

    read: int
    duplicates: int
    contaminated: int
    kept: int


def deduplicate(items: Sequence[Item]) -> tuple[list[Item], int]:
    """Return the first of each set of equal items, in order, and the number of the others.

    Problems are equal by conversation, demonstrations also by mode, reasoning and answer. Letters count as they are
    written, capitals too; only white space and the encoding of accents (NFC) may differ.
    """
    seen: set[str] = set()
    kept = []
    for item in items:
        signature = _signature(item)
        if signature not in seen:
            seen.add(signature)
            kept.append(item)
    return kept, len(items) - len(kept)


def decontaminate(items: Sequence[Item], benchmark: Sequence[Problem], ngram: int) -> tuple[list[Item], int]:
    """Return the items whose question is not in `benchmark`, in order, and the number of the others.

    A question (the last user turn) is in the benchmark when it equals one of its questions after `normalise` or
    shares `ngram` words (`WORD`) in a row with one. Below `ngram` words only equality counts.
    Raises ConfigError when `ngram` is less than 1.
    """
    if ngram < 1:
        raise ConfigError(f"decontaminate_ngram = {ngram}: at least 1 word")
    questions = {normalise(problem.question) for problem in benchmark}
    runs = {run for question in questions for run in _runs(question, ngram)}
    kept = []
    for item in items:
        question = normalise(_problem_of(item).question)
        if question not in questions and runs.isdisjoint(_runs(question, ngram)):
            kept.append(item)
    return kept, len(items) - len(kept)


def clean(items: Sequence[Item], config: DataConfig) -> tuple[list[Item], CleaningReport]:
    """Apply the hygiene that `config` asks for.

    The files of `config.decontaminate` name their questions as the data does; their other columns are not read.
    Raises DataError where such a file cannot be read.
    """
    kept, duplicates, contaminated = list(items), 0, 0
    if config.deduplicate:
        kept, duplicates = deduplicate(kept)
    if config.decontaminate:
        kept, contaminated = decontaminate(kept, _benchmark(config), config.decontaminate_ngram)
    return kept, CleaningReport(len(items), duplicates, contaminated, len(kept))


def _benchmark(config: DataConfig) -> list[Problem]:
    absent = dict.fromkeys(("reasoning", "answer", "mode", "scorer", "kind", "level"), "")
    fields = Fields(messages=config.fields.messages, prompt=config.fields.prompt, **absent)
    return read_problems(DataConfig(source="jsonl", files=config.decontaminate, fields=fields))


def _problem_of(item: Problem | Demonstration) -> Problem:
    return item.problem if isinstance(item, Demonstration) else item


def _spelled(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _turns(messages: Sequence[Message]) -> list[str]:
    return [part for message in messages for part in (message.role, _spelled(message.content))]


def _signature(item: Problem | Demonstration) -> str:
    parts = _turns(_problem_of(item).messages)
    if isinstance(item, Demonstration):
        parts += [item.mode.value, _spelled(item.reasoning), _spelled(item.answer)]
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def _runs(question: str, ngram: int) -> Iterator[str]:
    words = WORD.findall(question)
    return (" ".join(words[i : i + ngram]) for i in range(len(words) - ngram + 1))
