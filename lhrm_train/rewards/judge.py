"""Scoring of completions: the mode format is checked first, then the answer by its scorer."""

from __future__ import annotations

import math
import re
import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lhrm_train.config import ConfigError, RewardConfig
from lhrm_train.format import ChatTokenizer, Mode, Span, SpanSplitter
from lhrm_train.problems import Problem
from lhrm_train.rewards.base import ScoreError, Scorer
from lhrm_train.rewards.table import scorer


@dataclass(frozen=True)
class Verdict:
    """What the rules say about an answer's text.

    `score` is in [0, 1], or NaN where the scorer failed; `error` then says how. In think mode `leak_words`, the
    number of different leak words in the answer, is 0 and `overlong`, above the no-think limit, is False.
    """

    score: float
    leak_words: int
    overlong: bool
    error: str = ""


@dataclass(frozen=True)
class Judged:
    """A scored completion. Token counts exclude the opening tag, which belongs to the prompt.

    `score`, `leak_words`, `overlong` and `error` are those of its Verdict; `valid` is False where the scorer failed.
    `leaked` is True when the body holds a tag that its mode does not allow, `truncated` when the end of turn is
    missing.
    """

    score: float
    answer: str
    completion_tokens: int
    reasoning_tokens: int
    answer_tokens: int
    ended: bool
    leaked: bool
    valid: bool
    leak_words: int
    overlong: bool
    truncated: bool
    error: str = ""


class Judge:
    """Scores completions and counts the failures of scorers. Without a tokenizer it judges texts only.

    `failures` counts them by exception type; `first_failure` is the first one's traceback, empty before.
    Raises ConfigError for a default scorer that cannot be had and for an empty leak word.
    """

    def __init__(self, tokenizer: ChatTokenizer | None, config: RewardConfig) -> None:
        self._tokenizer = tokenizer
        self._config = config
        self._scorers: dict[str, Scorer] = {config.scorer: scorer(config.scorer, config)}
        self._leak_patterns = _leak_patterns(config.leak_words)
        self.failures: Counter[str] = Counter()
        self.first_failure = ""

    def check(self, problems: Iterable[Problem]) -> None:
        """Look up every scorer that `problems` name. Raises ConfigError, as `judge` would later."""
        for problem in problems:
            self._scorer(problem)

    def judge(self, problem: Problem, mode: Mode, ids: Sequence[int]) -> Judged:
        """Score a completion, given as the ids after the opening tag of `mode`.

        A malformed completion scores 0 without asking the scorer. Well-formed: closed by its own tag exactly once,
        ended by the end of turn, no other tag in the body. So does a no-think completion over the token limit, or
        with a leak word where those fail. A scorer that raises, or returns no number in [0, 1], makes the result
        invalid, never 0.

        Raises FormatError on ids after the end of turn, ConfigError on a scorer that cannot be had, and ValueError
        without a tokenizer.
        """
        if self._tokenizer is None:
            raise ValueError("ids cannot be judged without a tokenizer")
        splitter = SpanSplitter(self._tokenizer.tags, self._tokenizer.turn_end_id, mode)
        spans: dict[Span, list[int]] = {span: [] for span in Span}
        for delta in [*splitter.feed(ids), *splitter.finish()]:
            spans[delta.span] += delta.ids
        tags = self._tokenizer.tags
        forbidden = {tags.think, tags.think_end, tags.no_think, tags.no_think_end}
        leaked = any(token in forbidden for token in spans[Span.REASONING] + spans[Span.ANSWER])
        closed = splitter.reasoning_closed if mode is Mode.THINK else splitter.answer_closed
        answer = self._tokenizer.decode(spans[Span.ANSWER])
        verdict = self.judge_text(problem, mode, answer, len(ids), splitter.ended and closed and not leaked)
        return Judged(
            score=verdict.score,
            answer=answer,
            completion_tokens=len(ids),
            reasoning_tokens=len(spans[Span.REASONING]),
            answer_tokens=len(spans[Span.ANSWER]),
            ended=splitter.ended,
            leaked=leaked,
            valid=not math.isnan(verdict.score),
            leak_words=verdict.leak_words,
            overlong=verdict.overlong,
            truncated=not splitter.ended,
            error=verdict.error,
        )

    def judge_text(
        self, problem: Problem, mode: Mode, answer: str, completion_tokens: int, well_formed: bool
    ) -> Verdict:
        """Apply the rules of `judge` to an answer whose form is known. Raises ConfigError as `judge` does."""
        direct, config = mode is Mode.NO_THINK, self._config
        leak_words = sum(bool(pattern.search(answer)) for pattern in self._leak_patterns) if direct else 0
        overlong = direct and 0 < config.no_think_max_tokens < completion_tokens
        allowed = not overlong and not (config.leak_words_fail and leak_words)
        score, error = self._score(problem, answer) if well_formed and allowed else (0.0, "")
        return Verdict(score, leak_words, overlong, error)

    def _score(self, problem: Problem, answer: str) -> tuple[float, str]:
        rate = self._scorer(problem)
        try:
            score = float(rate(problem, answer))
            if not 0 <= score <= 1:
                raise ScoreError(f"score {score} is not in [0, 1]")
        except ConfigError:
            raise  # no answer can be scored: stop instead of training on nothing
        except Exception as exc:  # noqa: BLE001  # whatever a scorer does, one answer must not end the run
            self.failures[type(exc).__name__] += 1
            self.first_failure = self.first_failure or f"scorer {self._name(problem)!r}:\n{traceback.format_exc()}"
            return math.nan, f"{type(exc).__name__}: {exc}"
        return score, ""

    def _name(self, problem: Problem) -> str:
        return problem.scorer or self._config.scorer

    def _scorer(self, problem: Problem) -> Scorer:
        name = self._name(problem)
        if name not in self._scorers:
            self._scorers[name] = scorer(name, self._config)
        return self._scorers[name]


def _leak_patterns(words: Iterable[str]) -> tuple[re.Pattern[str], ...]:
    distinct = dict.fromkeys(tuple(word.casefold().split()) for word in words)
    if () in distinct:
        raise ConfigError(f"leak_words = {list(words)}: an empty word is in every answer")
    phrases = [r"\s+".join(map(re.escape, parts)) for parts in distinct]
    return tuple(re.compile(rf"(?<!\w){phrase}(?!\w)", re.IGNORECASE) for phrase in phrases)
