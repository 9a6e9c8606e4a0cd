"""Evaluation: sample every mode on given prompts and keep one raw row per prompt."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lhrm_train.config import EvalConfig, RewardConfig
from lhrm_train.format import ChatTokenizer, Message, Mode
from lhrm_train.grading import Graded, Grader, mode_samples
from lhrm_train.problems import Problem
from lhrm_train.rows import ContextRow, ModeSamples, Row, read_context_rows, read_rows, write_rows
from lhrm_train.samplers import Decision, LocalSampler, Sampler, derived_seed, load_for_evaluation
from lhrm_train.suite import mix

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "ContextRow",
    "ModeSamples",
    "Row",
    "context_rows",
    "evaluate",
    "load_for_evaluation",
    "read_context_rows",
    "read_rows",
    "sample_rows",
    "write_rows",
]


def sample_rows(
    sampler: Sampler, grader: Grader, problems: Mapping[int, Problem], samples: int, seed: int
) -> list[Row]:
    """Ask for the free choice, force each mode `samples` times on every problem, and grade what comes.

    `problems` maps the index that a row keeps to its problem. Raises SamplerError when the model cannot be asked and
    ConfigError for a scorer that cannot be had.
    """
    asked = list(problems.values())
    decisions = sampler.decide(asked)
    graded: dict[Mode, list[list[Graded]]] = {}
    for mode in sampler.modes:
        drawn = sampler.complete(asked, mode, samples, derived_seed(seed, mode.value))
        graded[mode] = [
            [grader.grade(problem, mode, completion) for completion in group]
            for problem, group in zip(asked, drawn, strict=True)
        ]
    return [
        _row(problem, index, decision, {mode: groups[place] for mode, groups in graded.items()})
        for place, ((index, problem), decision) in enumerate(zip(problems.items(), decisions, strict=True))
    ]


def _row(problem: Problem, index: int, decision: Decision, graded: dict[Mode, list[Graded]]) -> Row:
    errors = [decision.error, *(one.error for group in graded.values() for one in group)]
    return Row(
        kind=problem.kind,
        level=problem.level,
        closed=problem.closed,
        context=problem.context,
        key=problem.key,
        prompt_tokens=decision.prompt_tokens,
        p_think=decision.p_think,
        mass=decision.mass,
        think=mode_samples(graded.get(Mode.THINK, [])),
        no_think=mode_samples(graded.get(Mode.NO_THINK, [])),
        index=index,
        error=next(filter(None, errors), ""),
    )


def evaluate(checkpoint: Path, config: EvalConfig) -> list[Row]:
    """Return the rows of `checkpoint` on the first `config.prompts` prompts of the suite's `config.split`."""
    lm, tokenizer = load_for_evaluation(checkpoint)
    sampler = LocalSampler(lm, tokenizer, config, progress="evaluate")
    problems = dict(enumerate(item.problem for item in mix.fixed_items(config.prompts, config.seed, config.split)))
    return sample_rows(sampler, Grader(RewardConfig(), tokenizer), problems, config.samples, config.seed)


def _variants(item: mix.Item, rng: random.Random, split: str) -> dict[str, tuple[Message, ...]]:
    question = item.messages[-1]
    turns: list[Message] = []
    for _ in range(2):
        earlier = mix.sample_item(rng, split)
        turns += [earlier.messages[-1], Message("assistant", earlier.answer)]
    system = Message("system", "You are a helpful assistant.")
    return {"bare": (question,), "system": (system, question), "two turns": (*turns, question)}


def context_rows(lm: PreTrainedModel, tokenizer: ChatTokenizer, config: EvalConfig, questions: int) -> list[ContextRow]:
    """Ask the same questions bare, with a system message and after two turns, in the mode the model chooses."""
    rng = random.Random(f"contexts-{config.seed}")
    items = mix.fixed_items(questions, config.seed + 1, config.split)
    asked = [
        (variant, replace(item.problem, messages=messages))
        for item in items
        for variant, messages in _variants(item, rng, config.split).items()
    ]
    sampler, grader = LocalSampler(lm, tokenizer, config, progress="contexts"), Grader(RewardConfig(), tokenizer)
    free = [decision.p_think or 0.0 for decision in sampler.decide([problem for _, problem in asked])]
    scores: list[tuple[float, ...]] = [()] * len(asked)
    for mode in Mode:
        mine = [i for i, p_think in enumerate(free) if (p_think >= 0.5) == (mode is Mode.THINK)]
        problems = [asked[i][1] for i in mine]
        drawn = sampler.complete(problems, mode, max(1, config.samples // 2), derived_seed(config.seed, mode.value))
        for i, problem, group in zip(mine, problems, drawn, strict=True):
            graded = [grader.grade(problem, mode, completion).score for completion in group]
            scores[i] = tuple(score for score in graded if score is not None)
    return [
        ContextRow(variant, problem.kind, problem.level, problem.key, free[i], scores[i])
        for i, (variant, problem) in enumerate(asked)
    ]
