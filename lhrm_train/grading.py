"""From completions to graded samples: a local model's ids and a server's texts under the same scorers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lhrm_train.config import RewardConfig
from lhrm_train.format import ChatTokenizer, Mode
from lhrm_train.problems import Problem
from lhrm_train.rewards import Judge, Judged
from lhrm_train.rows import ModeSamples
from lhrm_train.samplers import Answered, Completion, Failed, Generated

LONG_MARGIN_TOKENS = 4
ERROR_CHARS = 300


@dataclass(frozen=True)
class Graded:
    """One sample of a row: see ModeSamples for what None means. `error` says why there is no score."""

    score: float | None = None
    tokens: int | None = None
    leaked: bool | None = None
    overlong: bool | None = None
    truncated: bool | None = None
    leak_words: int | None = None
    error: str = ""


def mode_samples(graded: Sequence[Graded]) -> ModeSamples:
    """Return the samples of one mode on one prompt."""
    return ModeSamples(
        scores=tuple(one.score for one in graded),
        tokens=tuple(one.tokens for one in graded),
        leaked=tuple(one.leaked for one in graded),
        overlong=tuple(one.overlong for one in graded),
        truncated=tuple(one.truncated for one in graded),
        leak_words=tuple(one.leak_words for one in graded),
    )


class Grader:
    """Grades completions. `tokenizer` reads ids; without it only texts can be graded."""

    def __init__(self, config: RewardConfig, tokenizer: ChatTokenizer | None) -> None:
        self._config = config
        self._tokenizer = tokenizer
        self._judge = Judge(tokenizer, config)

    def check(self, problems: Iterable[Problem]) -> None:
        """Raise ConfigError now for a scorer that some problem names and that cannot be had."""
        self._judge.check(problems)

    def grade(self, problem: Problem, mode: Mode, completion: Completion) -> Graded:
        """Grade one completion. A scorer that fails and an answer that did not come have no score.

        Raises ConfigError for a scorer that cannot be had and ValueError for ids without a tokenizer.
        """
        if isinstance(completion, Failed):
            return Graded(error=completion.reason[:ERROR_CHARS])
        if isinstance(completion, Answered):
            return self._text(problem, mode, completion)
        return self._ids(problem, mode, completion)

    def _ids(self, problem: Problem, mode: Mode, completion: Generated) -> Graded:
        judged = self._judge.judge(problem, mode, completion.ids)
        return Graded(
            score=_known(judged.score),
            tokens=judged.completion_tokens,
            leaked=judged.leaked,
            overlong=judged.overlong or self._goes_on(problem, judged),
            truncated=judged.truncated,
            leak_words=judged.leak_words,
            error=_failure(judged.error),
        )

    def _text(self, problem: Problem, mode: Mode, answer: Answered) -> Graded:
        verdict = self._judge.judge_text(problem, mode, answer.text, answer.completion_tokens, answer.well_formed)
        return Graded(
            score=_known(verdict.score),
            tokens=answer.completion_tokens,
            leaked=None,  # only ids tell a tag from its spelling
            overlong=verdict.overlong,
            truncated=answer.truncated,
            leak_words=verdict.leak_words,
            error=_failure(verdict.error),
        )

    def _goes_on(self, problem: Problem, judged: Judged) -> bool:
        """Tell whether an answer is longer than its reference where nothing but the reference is right."""
        if self._tokenizer is None or (problem.scorer or self._config.scorer) != "exact":
            return False
        return judged.answer_tokens > len(self._tokenizer.encode_text(problem.reference)) + LONG_MARGIN_TOKENS


def _known(score: float) -> float | None:
    return None if math.isnan(score) else score


def _failure(error: str) -> str:
    return f"the scorer failed with {error}"[:ERROR_CHARS] if error else ""
