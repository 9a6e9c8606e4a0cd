"""Strings of capital letters: reversing, naming a letter, counting."""

from __future__ import annotations

import random

from lhrm_train.suite.base import Draw, Kind, letters

REVERSE_PHRASES = ("Reverse {}.", "Spell {} backwards.", "What is {} reversed?")
LETTER_PHRASES = ("What is the {} letter of {}?", "Give the {} letter of {}.")

COUNT_PHRASES = ("How many letters are in {}?", "Count the letters of {}.")


def _indexed(text: str) -> str:
    return ",".join(f"{i}{letter}" for i, letter in enumerate(text, start=1))


def _reverse(rng: random.Random, level: int) -> Draw:
    text = letters(rng, 2 + level)
    backwards = ",".join(reversed(_indexed(text).split(",")))
    question = rng.choice(REVERSE_PHRASES).format(text)
    return Draw(f"reverse {text}", question, text[::-1], f"{_indexed(text)};{backwards}")


def _letter(rng: random.Random, level: int) -> Draw:
    text = letters(rng, 2 + level)
    which = rng.choice(("first", "second", "last"))
    answer = {"first": text[0], "second": text[1], "last": text[-1]}[which]
    question = rng.choice(LETTER_PHRASES).format(which, text)
    return Draw(f"letter {which} {text}", question, answer, f"{_indexed(text)};{which} is {answer}")


def _count(rng: random.Random, level: int) -> Draw:
    text = letters(rng, 2 + level)
    question = rng.choice(COUNT_PHRASES).format(text)
    return Draw(f"count {text}", question, str(len(text)), _indexed(text))


REVERSE = Kind("reverse", _reverse, levels=(1, 2, 3, 4, 5))
LETTER = Kind("letter", _letter, levels=(1, 2, 3, 4, 5))
COUNT = Kind("count", _count, levels=(1, 2, 3, 4, 5))
