"""Write lhrm-smol's files: HFT demonstrations, HGPO prompts, validation and test questions, held-out answers."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lhrm_train.atomic import write_json, write_text
from lhrm_train.records import package
from lhrm_train.smol.answers import Answers, read_answers
from lhrm_train.smol.everyday import IDENTITY, Prompt, prompts, prompts_of
from lhrm_train.smol.items import Item, items
from lhrm_train.smol.mixture import SEED, SYSTEM_MESSAGES, Mixture

Row = dict[str, Any]
CHAT_SCORER = "lhrm_train.smol.fluency:fluent"
CHAT_KIND, CHAT_LEVEL = "everyday", 0
FILES = ("hft", "prompts", "validation", "test", "test-chat", "held-out-answers")
SETTINGS = "settings.json"


class Conversation:
    """Places questions in conversations: bare, behind a system message, behind earlier turns of the same split."""

    def __init__(self, rng: random.Random, mixture: Mixture, earlier: Sequence[Item]) -> None:
        self._rng, self._mixture, self._earlier = rng, mixture, earlier

    def around(self, question: str, *, always: bool = False) -> list[Row]:
        """Return the messages up to `question`; with `always` something stands before it."""
        rng, messages = self._rng, []
        if always or rng.random() < self._mixture.system_share:
            messages.append({"role": "system", "content": rng.choice(SYSTEM_MESSAGES)})
        if rng.random() < self._mixture.turns_share:
            for item in rng.sample(self._earlier, rng.randint(1, 2)):
                messages.append({"role": "user", "content": item.draw.question})
                messages.append({"role": "assistant", "content": item.draw.answer})
        return [*messages, {"role": "user", "content": question}]


def write_data(out: Path, answers_file: Path, seed: int = SEED, scale: float = 1.0) -> dict[str, list[Row]]:
    """Write the files of `FILES` as `out`/NAME.jsonl, the same for the same arguments, and return their rows.

    What they were made with goes into `SETTINGS` beside them. Raises AnswersError when `answers_file` cannot be used or
    lacks a prompt, ItemError when a split has too few questions, ConfigError without reasoning-gym.
    """
    require_packages()
    answers, sampling = read_answers(answers_file)
    mixture = Mixture().scaled(scale)
    made = {
        "hft": _demonstrations(mixture, answers, seed),
        "prompts": _problems(mixture, seed),
        "validation": _questions(mixture, seed, "validation", mixture.validation),
        "test": _questions(mixture, seed, "test", mixture.test),
        "test-chat": [_chat_problem(prompt, _bare(prompt.prompt)) for prompt in prompts_of("test")],
        "held-out-answers": _held_out(answers),
    }
    for name, rows in made.items():
        write_text(out / f"{name}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    write_json(out / SETTINGS, {"seed": seed, "scale": scale, "answers": sampling})
    return made


def require_packages() -> None:
    """Raise ConfigError unless the packages that questions come from are installed."""
    package("reasoning_gym", "gym")


def _conversation(mixture: Mixture, seed: int, split: str, part: str) -> Conversation:
    easy = items(seed + 1, split, 60, (1.0, 0.0, 0.0, 0.0))
    return Conversation(random.Random(f"smol-around-{seed}-{split}-{part}"), mixture, easy)


def _bare(question: str) -> list[Row]:
    return [{"role": "user", "content": question}]


def _demonstrations(mixture: Mixture, answers: Answers, seed: int) -> list[Row]:
    rng = random.Random(f"smol-hft-{seed}")
    place = _conversation(mixture, seed, "train", "hft")
    thought = items(seed + 2, "train", mixture.think, mixture.think_levels)
    direct = items(seed + 3, "train", mixture.direct, mixture.direct_levels)
    rows = [_shown(item, place, rng, mixture, think=True) for item in thought]
    rows += [_shown(item, place, rng, mixture, think=False) for item in direct]
    for prompt in prompts_of("train"):
        for answer in (answers.get(prompt.prompt, ()) * mixture.answer_repeats)[: mixture.chat_answers]:
            plan = prompt.plan if rng.random() < mixture.chat_think_share else ""
            rows.append(_said(place.around(prompt.prompt), answer, plan))
    given = {prompt.prompt: prompt.answer for prompt in prompts_of("train") if prompt.answer}
    for question, answer in {**IDENTITY, **given}.items():
        rows.append(_said(_bare(question), answer, ""))
        rows += [_said(place.around(question, always=True), answer, "") for _ in range(mixture.given_repeats)]
    rng.shuffle(rows)
    return rows


def _shown(item: Item, place: Conversation, rng: random.Random, mixture: Mixture, *, think: bool) -> Row:
    draw = item.draw
    in_words = bool(draw.sentence) and rng.random() < mixture.sentence_share
    return {
        "messages": place.around(draw.question),
        **({"reasoning": draw.trace} if think else {}),
        "answer": draw.sentence if in_words else draw.answer,
        "mode": "think" if think else "no_think",
        "kind": item.kind,
        "level": item.level,
    }


def _said(messages: list[Row], answer: str, plan: str) -> Row:
    mode = "think" if plan else "no_think"
    reasoning = {"reasoning": plan} if plan else {}
    return {"messages": messages, **reasoning, "answer": answer, "mode": mode, "kind": CHAT_KIND, "level": CHAT_LEVEL}


def _asked(item: Item, messages: list[Row]) -> Row:
    return {
        "messages": messages,
        "answer": item.draw.answer,
        "scorer": item.draw.scorer,
        "kind": item.kind,
        "level": item.level,
    }


def _chat_problem(prompt: Prompt, messages: list[Row]) -> Row:
    return {"messages": messages, "scorer": CHAT_SCORER, "kind": CHAT_KIND, "level": CHAT_LEVEL, "group": prompt.group}


def _problems(mixture: Mixture, seed: int) -> list[Row]:
    rng = random.Random(f"smol-prompts-{seed}")
    place = _conversation(mixture, seed, "train", "prompts")
    chat = round(mixture.problems * mixture.chat_share)
    drawn = items(seed + 4, "train", mixture.problems - chat, mixture.problem_levels)
    rows = [_asked(item, place.around(item.draw.question)) for item in drawn]
    everyday = prompts_of("train")
    for number in range(chat):
        prompt = everyday[number % len(everyday)]
        # A prompt that comes again needs another conversation around it, or it would be a duplicate.
        messages = _bare(prompt.prompt) if number < len(everyday) else place.around(prompt.prompt, always=True)
        rows.append(_chat_problem(prompt, messages))
    rng.shuffle(rows)
    return rows


def _questions(mixture: Mixture, seed: int, split: str, count: int) -> list[Row]:
    place = _conversation(mixture, seed, split, "questions")
    drawn = items(seed + 5, split, count, mixture.problem_levels)
    return [_asked(item, place.around(item.draw.question)) for item in drawn]


def _held_out(answers: Answers) -> list[Row]:
    """Return answers of the base to everyday prompts that nothing is trained on, for perplexity."""
    held_out = [prompt for prompt in prompts() if prompt.split != "train"]
    return [{"prompt": p.prompt, "answer": answer} for p in held_out for answer in answers.get(p.prompt, ())[:1]]


def counts(rows: Iterable[Mapping[str, Any]], *names: str) -> dict[tuple[Any, ...], int]:
    """Return how many rows have each combination of the values of the columns `names`."""
    out: dict[tuple[Any, ...], int] = {}
    for row in rows:
        key = tuple(row.get(name) for name in names)
        out[key] = out.get(key, 0) + 1
    return dict(sorted(out.items(), key=lambda pair: str(pair[0])))
