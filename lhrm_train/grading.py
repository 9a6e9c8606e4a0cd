"""From completions to graded samples: a local model's ids and a server's texts under the same scorers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lhrm_train.config import ConfigError, RewardConfig
from lhrm_train.format import ChatTokenizer, Mode
from lhrm_train.problems import Problem
from lhrm_train.rewards import Judge, ScoreError, Scorer, scorer
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
        self._judge = None if tokenizer is None else Judge(tokenizer, config)
        self._texts = _TextJudge(config)

    def check(self, problems: Iterable[Problem]) -> None:
        """Raise ConfigError now for a scorer that some problem names and that cannot be had."""
        for problem in problems:
            self._texts.scorer_of(problem)

    def grade(self, problem: Problem, mode: Mode, completion: Completion) -> Graded:
        """Grade one completion. A scorer that fails and an answer that did not come have no score.

        Raises ConfigError for a scorer that cannot be had and ValueError for ids without a tokenizer.
        """
        if isinstance(completion, Failed):
            return Graded(error=completion.reason[:ERROR_CHARS])
        if isinstance(completion, Answered):
            return self._texts.grade(problem, mode, completion)
        return self._ids(problem, mode, completion)

    def _ids(self, problem: Problem, mode: Mode, completion: Generated) -> Graded:
        if self._judge is None or self._tokenizer is None:
            raise ValueError("ids cannot be graded without a tokenizer")
        judged = self._judge.judge(problem, mode, completion.ids)
        overlong = judged.overlong
        if (problem.scorer or self._config.scorer) == "exact":
            # Nothing but the reference is right here, so whatever goes beyond it was not needed.
            overlong |= judged.answer_tokens > len(self._tokenizer.encode_text(problem.reference)) + LONG_MARGIN_TOKENS
        first = self._judge.first_failure.strip().rpartition("\n")[2]
        return Graded(
            score=judged.score if judged.valid else None,
            tokens=judged.completion_tokens,
            leaked=judged.leaked,
            overlong=overlong,
            truncated=judged.truncated,
            leak_words=judged.leak_words,
            error="" if judged.valid else f"the scorer failed, first with {first}"[:ERROR_CHARS],
        )


class _TextJudge:
    """Judge's rules on a text: what only ids tell (a tag in the body) stays unknown."""

    def __init__(self, config: RewardConfig) -> None:
        self._config = config
        self._scorers: dict[str, Scorer] = {}
        self._leaks = [
            re.compile(r"(?<!\w)" + r"\s+".join(map(re.escape, parts)) + r"(?!\w)", re.IGNORECASE)
            for parts in dict.fromkeys(tuple(word.casefold().split()) for word in config.leak_words)
        ]

    def scorer_of(self, problem: Problem) -> Scorer:
        name = problem.scorer or self._config.scorer
        if name not in self._scorers:
            self._scorers[name] = scorer(name, self._config)
        return self._scorers[name]

    def grade(self, problem: Problem, mode: Mode, answer: Answered) -> Graded:
        direct, config = mode is Mode.NO_THINK, self._config
        leak_words = sum(bool(leak.search(answer.text)) for leak in self._leaks) if direct else 0
        overlong = direct and 0 < config.no_think_max_tokens < answer.completion_tokens
        allowed = not overlong and not (config.leak_words_fail and leak_words)
        score, error = self._score(problem, answer.text) if answer.well_formed and allowed else (0.0, "")
        return Graded(score, answer.completion_tokens, None, overlong, answer.truncated, leak_words, error)

    def _score(self, problem: Problem, text: str) -> tuple[float | None, str]:
        rate = self.scorer_of(problem)
        try:
            score = float(rate(problem, text))
            if not 0 <= score <= 1:
                raise ScoreError(f"score {score} is not in [0, 1]")
        except ConfigError:
            raise  # no answer can be scored: stop instead of measuring nothing
        except Exception as exc:  # noqa: BLE001  # whatever a scorer does, one answer must not end the run
            return None, f"the scorer failed with {type(exc).__name__}: {exc}"[:ERROR_CHARS]
        return score, ""
