"""What each arm did and how it differs from the baseline, computed from the rows alone."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from .estimate import Estimate, mean, quantile
from .pairs import Pair, complete, over_prompts
from .rows import Row
from .slo import POINTS, latency_ms

QUANTILES = (0.5, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Price:
    """Money per million prompt tokens and per million completion tokens, in any currency."""

    prompt: float
    completion: float

    def of(self, prompt_tokens: float, completion_tokens: float) -> float:
        """Return what these tokens cost."""
        return (self.prompt * prompt_tokens + self.completion * completion_tokens) / 1e6


@dataclass(frozen=True)
class Spread:
    """Mean, median and 95th percentile; None of nothing."""

    mean: float | None
    p50: float | None
    p95: float | None


@dataclass(frozen=True)
class ArmFigures:
    """One arm over its measured requests; everything but `requests` and `errors` is over those that succeeded.

    `latency_ms` maps first_token, first_answer and total to the QUANTILES, from the scheduled arrival. `think_rate` is
    the share answered in think mode, `cost` money for 1000 requests. The server told `queue_ms` and `decide_ms`.
    """

    requests: int
    errors: int
    completion: Spread
    reasoning: Spread
    decide_mean: float | None
    accuracy: float | None
    scored: int
    unscored_errors: int
    think_rate: float | None
    without_answer: int
    cost: float | None
    latency_ms: Mapping[str, tuple[float | None, ...]]
    queue_ms: Spread
    decide_ms: Spread
    ended_by: Mapping[str, int]
    sources: Mapping[str, int]


@dataclass(frozen=True)
class Difference:
    """The baseline minus an arm over the pairs of which both requests succeeded; positive tokens are saved.

    `ratio` is the arm's completion tokens over the baseline's, `saved_net_pct` charges the arm for its decide tokens,
    `accuracy` is the arm minus the baseline, `cost` the share of the baseline's cost that is saved in per cent.
    """

    pairs: int
    incomplete: int
    saved: Estimate | None
    saved_pct: Estimate | None
    saved_net_pct: Estimate | None
    saved_reasoning: Estimate | None
    ratio: Estimate | None
    accuracy: Estimate | None
    cost_pct: Estimate | None
    first_answer_ms: Estimate | None


@dataclass(frozen=True)
class Online:
    """The server's own savings estimate against the true paired difference, where it gave one.

    `bias` is estimate minus truth per request. Where the model chose to think the estimate is 0 by
    definition, so `no_think_bias` is over the `no_think` answers alone. `covered` counts, among the
    `intervals` of them that came with one, those whose interval holds the truth; `confidence` is what
    was promised.
    """

    pairs: int
    no_think: int
    estimated_mean: float | None
    true_mean: float | None
    bias: Estimate | None
    no_think_bias: Estimate | None
    intervals: int
    covered: int
    confidence: float | None


@dataclass(frozen=True)
class Group:
    """One task, level or set over the pairs that every arm answered; each mapping is by arm."""

    name: str
    pairs: int
    think_rate: Mapping[str, float | None]
    tokens: Mapping[str, float | None]
    accuracy: Mapping[str, float | None]


def arm_figures(rows: Sequence[Row], price: Price | None) -> ArmFigures:
    """Return the figures of one arm's measured rows."""
    replies = [row.reply for row in rows if row.reply is not None]
    answered = [row for row in rows if row.reply is not None]
    completion = [reply.completion_tokens for reply in replies]
    scores = [row.score for row in answered if row.score is not None]
    costs = [1000 * price.of(reply.prompt_tokens, reply.completion_tokens) for reply in replies] if price else []
    return ArmFigures(
        requests=len(rows),
        errors=sum(row.error is not None for row in rows),
        completion=_spread(completion),
        reasoning=_spread([reply.reasoning_tokens for reply in replies if reply.reasoning_tokens is not None]),
        decide_mean=mean([reply.decide_tokens for reply in replies]),
        accuracy=mean(scores),
        scored=len(scores),
        unscored_errors=sum(row.scoring_error is not None for row in answered),
        think_rate=mean([reply.mode == "think" for reply in replies]),
        without_answer=sum(row.first_answer_ms is None for row in answered),
        cost=mean(costs),
        latency_ms={point: latency_quantiles(answered, point) for point in POINTS},
        queue_ms=_spread([reply.queue_ms for reply in replies if reply.queue_ms is not None]),
        decide_ms=_spread([reply.decide_ms for reply in replies if reply.decide_ms is not None]),
        ended_by=Counter(reply.ended_by for reply in replies if reply.ended_by is not None),
        sources=Counter(reply.source for reply in replies if reply.source is not None),
    )


def _spread(values: Sequence[float]) -> Spread:
    return Spread(mean(values), quantile(values, 0.5), quantile(values, 0.95))


def latency_quantiles(rows: Iterable[Row], point: str) -> tuple[float | None, ...]:
    """Return the QUANTILES of milliseconds to `point`, of the requests that reached it."""
    known = [value for row in rows if (value := latency_ms(row, point)) is not None]
    return tuple(quantile(known, q) for q in QUANTILES)


def difference(pairs: Sequence[Pair], arm: str, baseline: str, price: Price | None) -> Difference:
    """Return how `arm` differs from `baseline` on the pairs that have both."""
    both = complete(pairs, arm, baseline)
    planned = len(pairs)

    def saved(pair: Pair) -> int:
        return pair.tokens(baseline) - pair.tokens(arm)

    return Difference(
        pairs=len(both),
        incomplete=planned - len(both),
        saved=over_prompts((pair, saved(pair), 1) for pair in both),
        saved_pct=_percent(over_prompts((pair, saved(pair), pair.tokens(baseline)) for pair in both)),
        saved_net_pct=_percent(
            over_prompts((pair, saved(pair) - _decided(pair, arm, baseline), pair.tokens(baseline)) for pair in both)
        ),
        saved_reasoning=over_prompts(_reasoning_terms(both, arm, baseline)),
        ratio=over_prompts((pair, pair.tokens(arm), pair.tokens(baseline)) for pair in both),
        accuracy=over_prompts(_accuracy_terms(both, arm, baseline)),
        cost_pct=_percent(over_prompts(_cost_terms(both, arm, baseline, price))) if price else None,
        first_answer_ms=over_prompts(_first_answer_terms(both, arm, baseline)),
    )


def _percent(share: Estimate | None) -> Estimate | None:
    return share.times(100) if share else None


def _decided(pair: Pair, arm: str, baseline: str) -> int:
    return pair.reply(arm).decide_tokens - pair.reply(baseline).decide_tokens


Terms = Iterable[tuple[Pair, float, float]]


def _reasoning_terms(pairs: Iterable[Pair], arm: str, baseline: str) -> Terms:
    for pair in pairs:
        mine, other = pair.reply(arm).reasoning_tokens, pair.reply(baseline).reasoning_tokens
        if mine is not None and other is not None:
            yield pair, other - mine, 1


def _accuracy_terms(pairs: Iterable[Pair], arm: str, baseline: str) -> Terms:
    for pair in pairs:
        mine, other = pair.rows[arm].score, pair.rows[baseline].score
        if mine is not None and other is not None:
            yield pair, mine - other, 1


def _cost_terms(pairs: Iterable[Pair], arm: str, baseline: str, price: Price) -> Terms:
    for pair in pairs:
        mine, other = (
            price.of(reply.prompt_tokens, reply.completion_tokens) for reply in (pair.reply(arm), pair.reply(baseline))
        )
        yield pair, other - mine, other


def _first_answer_terms(pairs: Iterable[Pair], arm: str, baseline: str) -> Terms:
    for pair in pairs:
        mine, other = (latency_ms(pair.rows[name], "first_answer") for name in (arm, baseline))
        if mine is not None and other is not None:
            yield pair, other - mine, 1


def online(pairs: Sequence[Pair], auto: str, think: str) -> Online:
    """Hold the estimates of `auto`'s replies against what `think` really cost."""
    known = [(pair, pair.reply(auto).savings) for pair in complete(pairs, auto, think)]
    estimated = [(pair, savings) for pair, savings in known if savings is not None]
    guessed = [(pair, savings) for pair, savings in estimated if pair.reply(auto).mode == "no_think"]

    def truth(pair: Pair) -> int:
        return pair.tokens(think) - pair.tokens(auto)

    ranges = [(truth(pair), savings.interval) for pair, savings in guessed if savings.interval is not None]
    return Online(
        pairs=len(estimated),
        no_think=len(guessed),
        estimated_mean=mean([savings.tokens for _, savings in estimated]),
        true_mean=mean([truth(pair) for pair, _ in estimated]),
        bias=over_prompts((pair, savings.tokens - truth(pair), 1) for pair, savings in estimated),
        no_think_bias=over_prompts((pair, savings.tokens - truth(pair), 1) for pair, savings in guessed),
        intervals=len(ranges),
        covered=sum(low <= saved <= high for saved, (low, high) in ranges),
        confidence=next((savings.confidence for _, savings in guessed), None),
    )


def groups(pairs: Sequence[Pair], arms: Sequence[str], key: Callable[[Pair], int | str | None]) -> list[Group]:
    """Return the pairs that every arm answered by `key`, numbers before names; None is in no group."""
    found: dict[int | str, list[Pair]] = defaultdict(list)
    for pair in complete(pairs, *arms):
        name = key(pair)
        if name is not None:
            found[name].append(pair)
    return [_group(str(name), found[name], arms) for name in sorted(found, key=_numbers_first)]


def _numbers_first(name: int | str) -> tuple[int, str]:
    return (name, "") if isinstance(name, int) else (sys.maxsize, name)


def _group(name: str, pairs: Sequence[Pair], arms: Sequence[str]) -> Group:
    def scores(arm: str) -> list[float]:
        return [score for pair in pairs if (score := pair.rows[arm].score) is not None]

    return Group(
        name=name,
        pairs=len(pairs),
        think_rate={arm: mean([pair.reply(arm).mode == "think" for pair in pairs]) for arm in arms},
        tokens={arm: mean([pair.tokens(arm) for pair in pairs]) for arm in arms},
        accuracy={arm: mean(scores(arm)) for arm in arms},
    )
