"""Answers of a model as its reader sees them: question, chosen mode, reasoning, answer, and whether it is right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lhrm_train.config import RewardConfig
from lhrm_train.format import ChatTokenizer, Mode, Span, SpanSplitter
from lhrm_train.grading import Grader
from lhrm_train.problems import Problem
from lhrm_train.rows import thinks
from lhrm_train.samplers import Generated, Sampler


@dataclass(frozen=True)
class Example:
    """One answer in the mode that the model chose. `score` is None where nothing says what is right."""

    question: str
    reference: str
    level: int
    p_think: float
    mode: str
    reasoning: str
    answer: str
    score: float | None


def answer_freely(sampler: Sampler, problems: Sequence[Problem], reward: RewardConfig, seed: int) -> list[Example]:
    """Answer every problem once in the mode that the model chooses; problems it has no room for are left out.

    Raises ConfigError for a scorer that cannot be had, ValueError for a sampler without token ids.
    """
    tokenizer = sampler.tokenizer
    if tokenizer is None:
        raise ValueError("examples need a sampler that gives token ids")
    grader = Grader(reward, tokenizer)
    found: dict[int, Example] = {}
    chosen = [(index, one.p_think) for index, one in enumerate(sampler.decide(problems)) if one.p_think is not None]
    for mode in sampler.modes:
        here = [(index, p_think) for index, p_think in chosen if thinks(p_think) is (mode is Mode.THINK)]
        if not here:
            continue
        asked = [problems[index] for index, _ in here]
        drawn = sampler.complete(asked, mode, 1, seed)
        for (index, p_think), problem, (completion,) in zip(here, asked, drawn, strict=True):
            if isinstance(completion, Generated):
                reasoning, answer = texts(tokenizer, mode, completion.ids)
                score = grader.grade(problem, mode, completion).score
                about = problem.question, problem.reference, problem.level, p_think, mode.value
                found[index] = Example(*about, reasoning, answer, score)
    return [found[index] for index in sorted(found)]


def texts(tokenizer: ChatTokenizer, mode: Mode, ids: Sequence[int]) -> tuple[str, str]:
    """Return the reasoning and the answer of one completion."""
    splitter = SpanSplitter(tokenizer.tags, tokenizer.turn_end_id, mode)
    deltas = [*splitter.feed(ids), *splitter.finish()]
    parts = {span: [token for delta in deltas if delta.span is span for token in delta.ids] for span in Span}
    reasoning, answer = (tokenizer.decode(parts[span]).strip() for span in (Span.REASONING, Span.ANSWER))
    return reasoning, answer
