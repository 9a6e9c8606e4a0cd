"""Every figure of the report, computed from the rows alone."""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from .estimate import Estimate, mean, quantile, ratio_estimate
from .rows import Outcome, Row
from .workload import Arm


@dataclass(frozen=True)
class ArmSummary:
    """One arm over all its requests that succeeded; `think_rate` is the share answered in think mode."""

    requests: int
    errors: int
    completion_mean: float | None
    completion_p95: float | None
    reasoning_mean: float | None
    answer_mean: float | None
    decide_mean: float | None
    accuracy: float | None
    checked: int
    think_rate: float | None
    without_answer: int
    first_token_ms: tuple[float | None, float | None]
    first_answer_ms: tuple[float | None, float | None]
    total_ms: tuple[float | None, float | None]
    ended_by: Mapping[str, int]
    sources: Mapping[str, int]


@dataclass(frozen=True)
class PairedSummary:
    """Always-think minus auto over the pairs of which both requests succeeded; positive tokens are saved.

    `saved_net_pct` charges auto for its decide tokens. `accuracy_difference` is auto minus always-think.
    """

    pairs: int
    incomplete: int
    saved_mean: Estimate | None
    saved_pct: Estimate | None
    saved_net_pct: Estimate | None
    accuracy_difference: Estimate | None


@dataclass(frozen=True)
class OnlineSummary:
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
class GroupSummary:
    """Both arms over the complete pairs of one task or level."""

    name: str
    pairs: int
    think_rate: float | None
    completion_auto: float | None
    completion_think: float | None
    accuracy_auto: float | None
    accuracy_think: float | None


@dataclass(frozen=True)
class Summary:
    """What a run showed."""

    arms: Mapping[Arm, ArmSummary]
    paired: PairedSummary
    online: OnlineSummary
    levels: Sequence[GroupSummary]
    tasks: Sequence[GroupSummary]
    sets: Sequence[GroupSummary]
    errors: Mapping[str, int]


@dataclass(frozen=True)
class Pair:
    """Both outcomes of one prompt in one repeat."""

    prompt: str
    task: str | None
    level: int | str | None
    closed: bool
    auto: Outcome
    think: Outcome

    @property
    def saved(self) -> int:
        """Completion tokens that auto did not spend."""
        return self.think.usage.completion_tokens - self.auto.usage.completion_tokens


def summarise(rows: Sequence[Row]) -> Summary:
    """Compute the summary of a run."""
    pairs = complete_pairs(rows)
    planned = len({(row.prompt, row.repeat) for row in rows})
    return Summary(
        arms={arm: _arm([row for row in rows if row.arm is arm]) for arm in Arm},
        paired=_paired(pairs, planned - len(pairs)),
        online=_online(pairs),
        levels=_groups(pairs, lambda pair: pair.level),
        tasks=_groups(pairs, lambda pair: pair.task),
        sets=_groups(pairs, lambda pair: "closed" if pair.closed else "open"),
        errors=Counter(row.error for row in rows if row.error is not None),
    )


def complete_pairs(rows: Iterable[Row]) -> list[Pair]:
    """Return the pairs of which both requests succeeded, in the order they were planned."""
    halves: dict[tuple[str, int], dict[Arm, Row]] = defaultdict(dict)
    for row in rows:
        halves[row.prompt, row.repeat][row.arm] = row
    pairs = []
    for both in halves.values():
        auto, think = both.get(Arm.AUTO), both.get(Arm.THINK)
        if auto and think and auto.outcome and think.outcome:
            pairs.append(Pair(auto.prompt, auto.task, auto.level, auto.closed, auto.outcome, think.outcome))
    return pairs


def _arm(rows: Sequence[Row]) -> ArmSummary:
    outcomes = [row.outcome for row in rows if row.outcome is not None]
    accounts = [outcome.accounting for outcome in outcomes]
    completion = [outcome.usage.completion_tokens for outcome in outcomes]
    graded = [outcome.correct for outcome in outcomes if outcome.correct is not None]
    return ArmSummary(
        requests=len(rows),
        errors=sum(row.error is not None for row in rows),
        completion_mean=mean(completion),
        completion_p95=quantile(completion, 0.95),
        reasoning_mean=mean([account.reasoning_tokens for account in accounts]),
        answer_mean=mean([account.answer_tokens for account in accounts]),
        decide_mean=mean([account.decide_tokens for account in accounts]),
        accuracy=mean(graded),
        checked=len(graded),
        think_rate=mean([account.mode == "think" for account in accounts]),
        without_answer=sum(outcome.first_answer_ms is None for outcome in outcomes),
        first_token_ms=_p50_p95(outcome.first_token_ms for outcome in outcomes),
        first_answer_ms=_p50_p95(outcome.first_answer_ms for outcome in outcomes),
        total_ms=_p50_p95(outcome.total_ms for outcome in outcomes),
        ended_by=Counter(account.ended_by for account in accounts),
        sources=Counter(account.source for account in accounts),
    )


def _p50_p95(values: Iterable[float | None]) -> tuple[float | None, float | None]:
    known = [value for value in values if value is not None]
    return quantile(known, 0.5), quantile(known, 0.95)


def _paired(pairs: Sequence[Pair], incomplete: int) -> PairedSummary:
    spent = [(pair, pair.think.usage.completion_tokens) for pair in pairs]
    graded = [(pair, pair.auto.correct, pair.think.correct) for pair in pairs]
    return PairedSummary(
        pairs=len(pairs),
        incomplete=incomplete,
        saved_mean=_estimate((pair, pair.saved, 1) for pair in pairs),
        saved_pct=_percent(_estimate((pair, pair.saved, think) for pair, think in spent)),
        saved_net_pct=_percent(
            _estimate((pair, pair.saved - pair.auto.accounting.decide_tokens, think) for pair, think in spent)
        ),
        accuracy_difference=_estimate(
            (pair, auto - think, 1) for pair, auto, think in graded if auto is not None and think is not None
        ),
    )


def _estimate(terms: Iterable[tuple[Pair, float, float]]) -> Estimate | None:
    """Estimate the ratio of the summed second and third members, resampling prompts."""
    clusters: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for pair, numerator, denominator in terms:
        clusters[pair.prompt].append((numerator, denominator))
    return ratio_estimate(list(clusters.values()))


def _percent(share: Estimate | None) -> Estimate | None:
    return Estimate(100 * share.value, 100 * share.low, 100 * share.high) if share else None


def _online(pairs: Sequence[Pair]) -> OnlineSummary:
    known = [(pair, pair.auto.accounting.savings) for pair in pairs]
    estimated = [(pair, savings) for pair, savings in known if savings is not None]
    guessed = [(pair, savings) for pair, savings in estimated if pair.auto.accounting.mode == "no_think"]
    intervals = [(pair.saved, savings.interval) for pair, savings in guessed if savings.interval is not None]
    return OnlineSummary(
        pairs=len(estimated),
        no_think=len(guessed),
        estimated_mean=mean([savings.tokens for _, savings in estimated]),
        true_mean=mean([pair.saved for pair, _ in estimated]),
        bias=_estimate((pair, savings.tokens - pair.saved, 1) for pair, savings in estimated),
        no_think_bias=_estimate((pair, savings.tokens - pair.saved, 1) for pair, savings in guessed),
        intervals=len(intervals),
        covered=sum(low <= saved <= high for saved, (low, high) in intervals),
        confidence=next((savings.confidence for _, savings in guessed), None),
    )


def _groups(pairs: Sequence[Pair], key: Callable[[Pair], int | str | None]) -> list[GroupSummary]:
    groups: dict[int | str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        name = key(pair)
        if name is not None:
            groups[name].append(pair)
    return [_group(str(name), groups[name]) for name in sorted(groups, key=_numbers_first)]


def _numbers_first(name: int | str) -> tuple[int, str]:
    return (name, "") if isinstance(name, int) else (sys.maxsize, name)


def _group(name: str, pairs: Sequence[Pair]) -> GroupSummary:
    return GroupSummary(
        name=name,
        pairs=len(pairs),
        think_rate=mean([pair.auto.accounting.mode == "think" for pair in pairs]),
        completion_auto=mean([pair.auto.usage.completion_tokens for pair in pairs]),
        completion_think=mean([pair.think.usage.completion_tokens for pair in pairs]),
        accuracy_auto=mean([pair.auto.correct for pair in pairs if pair.auto.correct is not None]),
        accuracy_think=mean([pair.think.correct for pair in pairs if pair.think.correct is not None]),
    )
