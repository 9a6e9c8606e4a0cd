"""Questions of reasoning-gym in its own words, with traces of ours; none of the evaluation's is among them."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any

from lhrm_train.records import package
from lhrm_train.smol.questions.base import Draw, Kind, closing
from lhrm_train.smol.questions.numbers import worked_out
from lhrm_train.smol.questions.unfit import fit_to_print
from lhrm_train.smol.questions.working import add, multiply

FIRST_SEED, SEEDS = 1_000_000_000, 1_000_000_000  # an entry's own seed is one of so many
EVALUATION_SEED, EVALUATION_QUESTIONS = 90_001, 200  # the first, and how many of a task the evaluation may ask
# What each level of a task is, in the task's own settings; together they hold all sizes of its defaults.
SETTINGS: Mapping[str, tuple[Mapping[str, int], ...]] = MappingProxyType(
    {
        "chain_sum": (
            {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
            {"min_terms": 2, "max_terms": 3, "min_digits": 2, "max_digits": 2},
            {"min_terms": 2, "max_terms": 4, "min_digits": 3, "max_digits": 4},
            {"min_terms": 3, "max_terms": 6, "min_digits": 1, "max_digits": 4},
        ),
        "leg_counting": (
            {"min_animals": 1, "max_animals": 1, "max_instances": 9},
            {"min_animals": 2, "max_animals": 2, "max_instances": 9},
            {"min_animals": 3, "max_animals": 4},
            {"min_animals": 5, "max_animals": 10},
        ),
        "letter_counting": (
            {"min_words": 1, "max_words": 2},
            {"min_words": 3, "max_words": 4},
            {"min_words": 5, "max_words": 8},
            {"min_words": 9, "max_words": 15},
        ),
        "spell_backward": (
            {"min_word_len": 3, "max_word_len": 4},
            {"min_word_len": 5, "max_word_len": 5},
            {"min_word_len": 6, "max_word_len": 7},
            {"min_word_len": 8, "max_word_len": 10},
        ),
    }
)
Entry = Mapping[str, Any]


@cache
def _dataset(task: str, level: int) -> Any:
    gym = package("reasoning_gym", "gym")
    return gym.create_dataset(task, seed=FIRST_SEED, size=SEEDS, **SETTINGS[task][level - 1])


@cache
def _asked_in_evaluation(task: str) -> frozenset[str]:
    gym = package("reasoning_gym", "gym")
    entries = gym.create_dataset(task, seed=EVALUATION_SEED, size=EVALUATION_QUESTIONS)
    return frozenset(entry["question"] for entry in entries)


def _entry(task: str, level: int, rng: random.Random) -> Entry:
    while True:
        entry: Entry = _dataset(task, level)[rng.randrange(SEEDS)]
        if entry["question"] not in _asked_in_evaluation(task) and fit_to_print(entry["metadata"].get("word", "")):
            return entry


def _sum(entry: Entry) -> list[str]:
    return worked_out(entry["metadata"]["expression"])[0]


def _legs(entry: Entry) -> list[str]:
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    steps, total = [], 0
    for animal, count in entry["metadata"]["animals"].items():
        if not ANIMALS[animal]:
            steps.append(f"{animal}: no legs.")
            continue
        legs = count * ANIMALS[animal]
        steps.append(f"{animal}: {multiply(count, ANIMALS[animal])}.")
        if total:
            steps.append(f"{add(total, legs)}.")
        total += legs
    return steps


def _letters(entry: Entry) -> list[str]:
    letter, total, said = entry["metadata"]["target_letter"], 0, []
    for word in entry["metadata"]["span"]:
        if letter not in word.lower():
            said.append(f"{word} no")
            continue
        spelled = []
        for one in word:
            total += one.lower() == letter
            spelled.append(f"{one} ({total})" if one.lower() == letter else one)
        said.append(f"{word}: {', '.join(spelled)}")
    return [f"{'; '.join(said)}."]


def _backward(entry: Entry) -> list[str]:
    word = entry["metadata"]["word"]
    return [f"Spelled: {', '.join(word)}.", f"From the end: {', '.join(reversed(word))}."]


def _kind(task: str, steps: Callable[[Entry], list[str]]) -> Kind:
    def draw(rng: random.Random, level: int) -> Draw:
        entry = _entry(task, level, rng)
        answer = entry["answer"]
        return Draw(
            form=task,
            key=entry["question"],
            question=entry["question"].strip(),  # as the evaluation asks it
            trace=" ".join([*steps(entry), closing(rng, answer)]),
            answer=answer,
            scorer="exact" if task == "spell_backward" else "numeric",
        )

    return Kind(f"gym {task}", draw)


KINDS = (
    _kind("chain_sum", _sum),
    _kind("leg_counting", _legs),
    _kind("letter_counting", _letters),
    _kind("spell_backward", _backward),
)
