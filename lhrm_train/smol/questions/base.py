"""What a question generator returns, and the row that describes a kind of question."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

LEVELS = (1, 2, 3, 4)  # 1 can be answered directly; 3 and 4 need steps
KNOWN_LEVEL = 1  # its answers are known by heart or not at all, such as products of the times tables

ScorerName = Literal["numeric", "exact"]


@dataclass(frozen=True)
class Draw:
    """One drawn question.

    `form` names the rule by which the checker recomputes the answer from the text of the question. `key` names the
    content apart from its phrasing, so that two phrasings share a split. `trace` is the reasoning; it ends in
    `answer`. `sentence` says the answer in words, for answers that are scored by their number; else it is empty.
    """

    form: str
    key: str
    question: str
    trace: str
    answer: str
    scorer: ScorerName = "numeric"
    sentence: str = ""


Generator = Callable[[random.Random, int], Draw]


@dataclass(frozen=True)
class Kind:
    """A kind of question that has all of `LEVELS`."""

    name: str
    draw: Generator


@dataclass(frozen=True)
class Template:
    """Ways to ask one thing: `questions` and `sentences` share their fields, `{answer}` is for sentences alone.

    All questions name their numbers in the same order, which is the order that the checker's rule of `form` reads.
    """

    form: str
    questions: tuple[str, ...]
    sentences: tuple[str, ...] = ()


CLOSINGS = ("So the answer is {}.", "The answer is {}.", "That makes {}.", "So it is {}.")


def closing(rng: random.Random, answer: str) -> str:
    """Return a last sentence that ends in `answer`."""
    return rng.choice(CLOSINGS).format(answer)


def ask(
    rng: random.Random,
    template: Template,
    fields: Mapping[str, object],
    numbers: Sequence[object],
    steps: Sequence[str],
    answer: object,
) -> Draw:
    """Phrase a question whose answer is a number. `numbers` are the content; each of `steps` is a whole sentence."""
    shown = str(answer)
    sentence = rng.choice(template.sentences).format(**fields, answer=shown) if template.sentences else ""
    return Draw(
        form=template.form,
        key=f"{template.form} {' '.join(map(str, numbers))}",
        question=rng.choice(template.questions).format(**fields),
        trace=" ".join([*steps, closing(rng, shown)]),
        answer=shown,
        sentence=sentence,
    )
