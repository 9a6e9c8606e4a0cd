"""Counting letters and things, sorting, and writing words backwards."""

from __future__ import annotations

import random

from lhrm_train.smol.questions.base import Draw, Kind, Template, ask, closing
from lhrm_train.smol.questions.words import CATEGORIES, NAMES, WORDS
from lhrm_train.smol.questions.working import add

LETTER = Template(
    "letter_count",
    (
        'How often does the letter "{letter}" occur in "{word}"?',
        'How many times is "{letter}" in the word "{word}"?',
        'Count the letter "{letter}" in "{word}".',
    ),
    ('The number of "{letter}" is {answer}.', 'The count of "{letter}" is {answer}.'),
)
VOWELS = Template(
    "vowel_count",
    (
        'How many vowels (a, e, i, o, u) does "{word}" have?',
        'Count the vowels a, e, i, o and u in "{word}".',
        'In the word "{word}", how many letters are vowels (a, e, i, o, u)?',
    ),
    ("It has {answer}.",),
)
THINGS = Template(
    "category_count",
    (
        "{name} has {list}. How many {category} does {name} have?",
        "There are {list} in a picture. How many {category} can you see?",
        "A child draws {list}. Count the {category}.",
    ),
    ("There are {answer} {category}.",),
)
ABOVE = Template(
    "above_count",
    (
        "How many of these numbers are larger than {limit}: {list}?",
        "Take those above {limit} out of the numbers {list}. How many are they?",
        "{name} marks every number above {limit} in {list}. How many are marked?",
    ),
    ("The number of larger ones is {answer}.",),
)
BACKWARDS = (
    'Write the word "{word}" backwards.',
    'Spell "{word}" in reverse.',
    'What is "{word}" read from right to left?',
)
LETTERS_BACKWARDS = (
    'Name the letters of "{word}" from the last to the first, with commas.',
    'Spell "{word}" in reverse, letter by letter, with commas.',
    'List the letters of the word "{word}" from right to left, with commas.',
)
SORT_UP = (
    "Sort these numbers from smallest to largest: {list}",
    "Put {list} in increasing order.",
    "Order the numbers {list}, smallest first.",
)
SORT_DOWN = ("Sort these numbers from largest to smallest: {list}", "Put {list} in decreasing order.")
SORT_WORDS = (
    "Put these words in alphabetical order: {list}",
    "Sort the words {list} from A to Z.",
    "Alphabetical order, please: {list}",
)
ORDINALS = ("smallest", "second smallest", "third smallest", "fourth smallest", "fifth smallest")
KTH = Template(
    "kth",
    (
        "What is the {ordinal} of these numbers: {list}?",
        "Which is the {ordinal} number in {list}?",
        "Find the {ordinal} number: {list}.",
    ),
    ("The {ordinal} is {answer}.",),
)
LENGTHS = {1: (3, 4), 2: (5, 6), 3: (7, 8), 4: (9, 12)}
BACKWARDS_LENGTHS = {1: (3, 4), 2: (5, 5), 3: (6, 6), 4: (7, 8)}
LETTERS_SHARE = 0.7  # of the words backwards; whole ones end in pieces of words that nobody has read


def _word(rng: random.Random, low: int, high: int) -> str:
    return rng.choice([word for word in WORDS if low <= len(word) <= high])


def _letters(rng: random.Random, level: int) -> Draw:
    word = _word(rng, *LENGTHS[level])
    if level == 4:
        return _vowels(rng, word)
    letter = max(rng.sample(word, 2), key=word.count) if rng.random() < 0.85 else rng.choice("aeinrst")
    spelled, count = [], 0
    for one in word:
        count += one == letter
        spelled.append(f"{one} ({count})" if one == letter else one)
    steps = (f"Letter by letter: {', '.join(spelled)}.",)
    return ask(rng, LETTER, {"letter": letter, "word": word}, (word, letter), steps, count)


def _vowels(rng: random.Random, word: str) -> Draw:
    spelled, count = [], 0
    for one in word:
        count += one in "aeiou"
        spelled.append(f"{one} ({count})" if one in "aeiou" else one)
    return ask(rng, VOWELS, {"word": word}, (word,), (f"Letter by letter: {', '.join(spelled)}.",), count)


def _backwards(rng: random.Random, level: int) -> Draw:
    word = _word(rng, *BACKWARDS_LENGTHS[level])
    spelled, reverse = f"Spelled: {', '.join(word)}.", ", ".join(reversed(word))
    if rng.random() < LETTERS_SHARE:
        trace, question = f"{spelled} {closing(rng, reverse)}", rng.choice(LETTERS_BACKWARDS)
        return Draw("letters_backwards", f"backwards {word}", question.format(word=word), trace, reverse, "exact")
    trace, question = f"{spelled} From the end: {reverse}. {closing(rng, word[::-1])}", rng.choice(BACKWARDS)
    return Draw("backwards", f"backwards {word}", question.format(word=word), trace, word[::-1], "exact")


def _objects(rng: random.Random, level: int) -> Draw:
    if level >= 3 and rng.random() < 0.4:
        return _above(rng, level)
    category, other, third = rng.sample(list(CATEGORIES), 3)
    wanted = rng.sample(CATEGORIES[category], (1, 2, 3, 4)[level - 1])
    others = rng.sample(CATEGORIES[other], (1, 1, 2, 2)[level - 1])
    others += rng.sample(CATEGORIES[third], (0, 0, 1, 2)[level - 1])
    things = [*wanted, *others]
    rng.shuffle(things)
    counts = {thing: rng.randint(2, (9, 9, 15, 25)[level - 1]) for thing in things}
    listed = [f"{counts[thing]} {thing}" for thing in things]
    steps, total = [], 0
    for thing in things:
        count = counts[thing]
        if thing not in wanted:
            steps.append(f"{count} {thing}: no.")
            continue
        steps.append(f"{count} {thing}: yes, {add(total, count) if total else count}.")
        total += count
    fields = {"name": rng.choice(NAMES), "category": category, "list": _and(listed)}
    return ask(rng, THINGS, fields, (category, *sorted(listed)), steps, total)


def _and(parts: list[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


def _above(rng: random.Random, level: int) -> Draw:
    values = rng.sample(range(10, 99), 6 if level == 3 else 9)
    limit = rng.randint(25, 80)
    said, count = [], 0
    for value in values:
        count += value > limit
        said.append(f"{value} yes ({count})" if value > limit else f"{value} no")
    fields = {"limit": limit, "list": ", ".join(map(str, values)), "name": rng.choice(NAMES)}
    return ask(rng, ABOVE, fields, (limit, *sorted(values)), (f"{', '.join(said)}.",), count)


def _sorting(rng: random.Random, level: int) -> Draw:
    count = (2, 3, 5, 6)[level - 1]
    if level > 1 and rng.random() < 0.3:
        return _sort_words(rng, count)
    values = rng.sample(range(1, 100), count)
    if level > 1 and rng.random() < 0.4:
        return _kth(rng, values)
    down = rng.random() < 0.3
    ordered = sorted(values, reverse=down)
    rest, steps = list(values), []
    for value in ordered[:-1]:
        steps.append(f"Of {', '.join(map(str, rest))}: {value}.")
        rest.remove(value)
    answer = ", ".join(map(str, ordered))
    question = rng.choice(SORT_DOWN if down else SORT_UP).format(list=", ".join(map(str, values)))
    key = f"sort {down} {sorted(values)}"
    trace = " ".join([*steps, f"Left is {rest[0]}.", closing(rng, answer)])
    return Draw("sort_down" if down else "sort_up", key, question, trace, answer, "exact")


def _kth(rng: random.Random, values: list[int]) -> Draw:
    k = rng.randint(1, min(len(values), len(ORDINALS)) - 1)
    rest, steps = list(values), []
    for _ in range(k + 1):
        lowest = min(rest)
        steps.append(f"Of {', '.join(map(str, rest))} the smallest is {lowest}.")
        rest.remove(lowest)
    fields = {"ordinal": ORDINALS[k], "list": ", ".join(map(str, values))}
    return ask(rng, KTH, fields, (k, *sorted(values)), steps, lowest)


def _sort_words(rng: random.Random, count: int) -> Draw:
    words = rng.sample(WORDS, count)
    rest, steps = list(words), []
    for word in sorted(words)[:-1]:
        steps.append(f"First of {', '.join(rest)}: {word}.")
        rest.remove(word)
    answer = ", ".join(sorted(words))
    question = rng.choice(SORT_WORDS).format(list=", ".join(words))
    trace = " ".join([*steps, f"Left is {rest[0]}.", closing(rng, answer)])
    return Draw("sort_words", f"sort {sorted(words)}", question, trace, answer, "exact")


KINDS = (
    Kind("letters", _letters),
    Kind("backwards", _backwards),
    Kind("objects", _objects),
    Kind("sorting", _sorting),
)
