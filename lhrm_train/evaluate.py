"""Ask a sampler problems and grade what comes: one raw row per prompt."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

from lhrm_train.config import EvalConfig
from lhrm_train.format import Message, Mode
from lhrm_train.grading import Graded, Grader, mode_samples
from lhrm_train.problems import Problem
from lhrm_train.rows import ContextRow, Row, thinks
from lhrm_train.samplers import Decision, Sampler, derived_seed
from lhrm_train.suite import mix


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


def _variants(item: mix.Item, rng: random.Random, split: str) -> dict[str, tuple[Message, ...]]:
    question = item.messages[-1]
    turns: list[Message] = []
    for _ in range(8):
        earlier = mix.sample_item(rng, split)
        turns += [earlier.messages[-1], Message("assistant", earlier.answer)]
    system = Message("system", "You are a helpful assistant.")
    two = turns[:4]
    return {
        "bare": (question,),
        "system": (system, question),
        "two turns": (*two, question),
        "eight turns": (*turns, question),
    }


def context_problems(config: EvalConfig) -> list[Problem]:
    """Return the same questions bare, with a system message, after two and eight turns; `context` names which."""
    rng = random.Random(f"contexts-{config.seed}")
    return [
        replace(item.problem, messages=messages, context=variant)
        for item in mix.fixed_items(config.context_questions, config.seed + 1, config.split)
        for variant, messages in _variants(item, rng, config.split).items()
    ]


def sample_contexts(
    sampler: Sampler, grader: Grader, problems: Mapping[int, Problem], samples: int, seed: int
) -> list[ContextRow]:
    """Ask every problem in the mode the model chooses and grade what comes. Raises what `sample_rows` raises."""
    decisions = dict(zip(problems, sampler.decide(list(problems.values())), strict=True))
    scores: dict[int, tuple[float, ...]] = dict.fromkeys(problems, ())
    for mode in sampler.modes:
        mine = {i: problems[i] for i, one in decisions.items() if one.p_think is not None and _chosen(one) is mode}
        drawn = sampler.complete(list(mine.values()), mode, samples, derived_seed(seed, mode.value))
        for (i, problem), group in zip(mine.items(), drawn, strict=True):
            graded = [grader.grade(problem, mode, completion).score for completion in group]
            scores[i] = tuple(score for score in graded if score is not None)
    return [
        ContextRow(
            variant=problem.context,
            kind=problem.kind,
            level=problem.level,
            key=problem.key,
            p_think=decisions[i].p_think,
            scores=scores[i],
            index=i,
            error=decisions[i].error,
        )
        for i, problem in problems.items()
    ]


def _chosen(decision: Decision) -> Mode:
    return Mode.THINK if thinks(decision.p_think) else Mode.NO_THINK
