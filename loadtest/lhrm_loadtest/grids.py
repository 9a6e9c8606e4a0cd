"""The report's tables, before they are drawn in Markdown, HTML or on the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from .estimate import CONFIDENCE, Estimate
from .figures import ArmFigures, Difference, Group
from .load import StepFigures
from .pairs import CurvePoint
from .slo import POINTS
from .summary import Summary

NONE = "-"
CURVE_LINES = 11


@dataclass(frozen=True)
class Grid:
    """A table; the first cell of every line names it."""

    title: str
    head: Sequence[str]
    body: Sequence[Sequence[str]]


def grids(summary: Summary) -> list[Grid]:
    """Return the tables; one that would be empty is left out."""
    candidates = [
        _arms(summary),
        _differences(summary),
        _oracle(summary),
        _other_mixes(summary),
        _latency(summary),
        *_goodput(summary),
        _loads(summary),
        _online(summary),
        *_groups("By difficulty (level)", summary.levels),
        *_groups("By task", summary.tasks),
        *(_groups("Closed sets (shared with training) apart", summary.sets) if len(summary.sets) > 1 else ()),
        _curve(summary.curve),
        _driver(summary),
        Grid("Errors", ["error", "requests"], [[error, str(count)] for error, count in summary.errors.items()]),
    ]
    return [grid for grid in candidates if grid.body]


def _lines(names: Iterable[str], rows: Mapping[str, Callable[[str], str]]) -> list[list[str]]:
    """Return one line for each figure with a cell for every name; a line without any figure is left out."""
    lines = [[title, *(cell(name) for name in names)] for title, cell in rows.items()]
    return [line for line in lines if any(cell != NONE for cell in line[1:])]


def _arms(summary: Summary) -> Grid:
    arms = summary.arms

    def cell(show: Callable[[ArmFigures], str]) -> Callable[[str], str]:
        return lambda name: show(arms[name])

    rows = {
        "requests (errors)": cell(lambda arm: f"{arm.requests} ({arm.errors})"),
        "accuracy, % (scored)": cell(lambda arm: f"{percent(arm.accuracy)} ({arm.scored})" if arm.scored else NONE),
        "answers whose scorer failed": cell(lambda arm: str(arm.unscored_errors) if arm.unscored_errors else NONE),
        "completion tokens, mean": cell(lambda arm: number(arm.completion.mean)),
        "completion tokens, p50 / p95": cell(lambda arm: several((arm.completion.p50, arm.completion.p95))),
        "reasoning tokens, mean": cell(lambda arm: number(arm.reasoning.mean)),
        "reasoning tokens, p50 / p95": cell(lambda arm: several((arm.reasoning.p50, arm.reasoning.p95))),
        "decide tokens, mean": cell(lambda arm: number(arm.decide_mean)),
        "cost of 1000 requests": cell(lambda arm: NONE if arm.cost is None else f"{arm.cost:.4g}"),
        "answered in think mode, %": cell(lambda arm: percent(arm.think_rate)),
        "decision, p50 / p95 ms by the server's clock": cell(
            lambda arm: several((arm.decide_ms.p50, arm.decide_ms.p95))
        ),
        "before the engine, p50 / p95 ms, the same": cell(lambda arm: several((arm.queue_ms.p50, arm.queue_ms.p95))),
        "ended without an answer": cell(lambda arm: str(arm.without_answer)),
        "ended by": cell(lambda arm: counts(arm.ended_by)),
        "mode chosen by": cell(lambda arm: counts(arm.sources)),
    }
    return Grid("Arms", ["", *arms], _lines(arms, rows))


def _differences(summary: Summary) -> Grid:
    found = summary.differences

    def cell(pick: Callable[[Difference], Estimate | None], factor: float = 1) -> Callable[[str], str]:
        return lambda name: interval(pick(found[name]), factor)

    rows = {
        "complete pairs (incomplete)": lambda name: f"{found[name].pairs} ({found[name].incomplete})",
        "accuracy, arm minus baseline, points": cell(lambda one: one.accuracy, 100),
        "completion tokens saved per request": cell(lambda one: one.saved),
        "reasoning tokens saved per request": cell(lambda one: one.saved_reasoning),
        "completion tokens, % of the baseline's": cell(lambda one: one.ratio, 100),
        "completion tokens saved, %": cell(lambda one: one.saved_pct),
        "the same, decide tokens charged, %": cell(lambda one: one.saved_net_pct),
        "cost saved, %": cell(lambda one: one.cost_pct),
        "first answer token earlier by, ms": cell(lambda one: one.first_answer_ms),
    }
    title = f"Against {summary.baseline}, paired, with {CONFIDENCE:.0%} bootstrap intervals over prompts"
    return Grid(title, ["", *found], _lines(found, rows))


def _oracle(summary: Summary) -> Grid:
    best, parts = summary.oracle, summary.roles
    if best is None:
        return Grid("", [], [])
    mine = summary.differences.get(parts.auto or "")
    body = [
        ["pairs scored in both modes", str(best.pairs)],
        ["oracle: completion tokens, % of always-think's", interval(best.ratio, 100)],
        ["oracle: completion tokens, mean", number(best.tokens)],
        ["oracle: accuracy, %", percent(best.accuracy)],
        ["oracle: think rate, %", percent(best.think_rate)],
    ]
    if mine is not None and summary.baseline == parts.think:
        body.insert(1, [f"{parts.auto}: completion tokens, % of always-think's", interval(mine.ratio, 100)])
    return Grid("The oracle, which takes the better mode of every prompt", ["", "value"], body)


def _other_mixes(summary: Summary) -> Grid:
    head = ["share of prompts that only thinking answers, %", "completion tokens, % of always-think's", "oracle's, %"]
    body = [[percent(mix.share), percent(mix.auto), percent(mix.oracle)] for mix in summary.other_mixes]
    return Grid("The same prompts in other shares", head, body)


def _latency(summary: Summary) -> Grid:
    head = ["arm", "to", "p50 ms", "p90 ms", "p95 ms", "p99 ms"]
    body = [
        [name, point.replace("_", " "), *map(number, arm.latency_ms[point])]
        for name, arm in summary.arms.items()
        for point in POINTS
        if arm.latency_ms[point][0] is not None
    ]
    return Grid("Latency from the scheduled arrival, all loads together", head, body)


def _goodput(summary: Summary) -> list[Grid]:
    if not summary.goodput:
        return []
    head = [
        "SLO, ms",
        "loads with",
        "arm",
        "goodput /s",
        "at",
        f"{summary.baseline} /s",
        "at",
        "ratio [lowest, highest repeat]",
    ]
    body = [
        [
            one.slo,
            f"{100 * one.share:.0f} % within" if one.share else "any share",
            one.arm,
            f"{one.best:.2f}",
            str(one.best_load),
            f"{one.baseline:.2f}",
            str(one.baseline_load),
            f"{one.ratio:.2f} [{one.low:.2f}, {one.high:.2f}]",
        ]
        for one in summary.goodput
    ]
    return [Grid("Best goodput over the loads", head, body)]


def _loads(summary: Summary) -> Grid:
    slos = list(summary.steps[0].met) if summary.steps else []
    head = ["load", "arm", "requests (errors)", "answered /s", "tokens /s", "first answer p50 / p95 / p99 ms"]
    head += [f"{what} {slo}" for slo in slos for what in ("within, %", "goodput /s")]
    return Grid("Every load", head, [_load_line(step, slos, summary.knees.get(step.arm)) for step in summary.steps])


def _load_line(step: StepFigures, slos: Sequence[str], knee: StepFigures | None) -> list[str]:
    p50, _, p95, p99 = step.first_answer_ms
    cells = [
        f"{step.load}{' (knee)' if step is knee else ''}",
        step.arm,
        f"{step.requests} ({step.errors})",
        ratio(step.throughput),
        number(step.tokens_per_s),
        several((p50, p95, p99)),
    ]
    for slo in slos:
        cells += [percent(step.met[slo]), ratio(step.goodput[slo])]
    return cells


def _online(summary: Summary) -> Grid:
    online = summary.online
    if online is None or not online.pairs:
        return Grid("", [], [])
    body = [
        ["pairs with a server estimate", str(online.pairs)],
        ["saved per request there, the server's estimate", number(online.estimated_mean)],
        ["saved per request there, true paired difference", number(online.true_mean)],
        ["estimate minus truth", interval(online.bias)],
        [f"the same, {online.no_think} no-think answers only", interval(online.no_think_bias)],
    ]
    if online.intervals:
        promised = f"true difference within the server's {percent(online.confidence)} % interval"
        body.append([promised, f"{online.covered} of {online.intervals}"])
    return Grid("The server's savings estimate against the truth", ["", "value"], body)


def _groups(title: str, groups: Sequence[Group]) -> list[Grid]:
    if not groups:
        return []
    arms = list(groups[0].tokens)
    head = ["", "pairs"]
    head += [f"{what} {arm}" for what in ("think %", "tokens", "accuracy %") for arm in arms]
    body = [
        [
            group.name,
            str(group.pairs),
            *(percent(group.think_rate[arm]) for arm in arms),
            *(number(group.tokens[arm]) for arm in arms),
            *(percent(group.accuracy[arm]) for arm in arms),
        ]
        for group in groups
    ]
    return [Grid(title, head, body)]


def _curve(points: Sequence[CurvePoint]) -> Grid:
    """Show points that are spread over the think rate; the plot has them all."""
    wanted = [place / (CURVE_LINES - 1) for place in range(CURVE_LINES)] if points else []
    nearest = {min(range(len(points)), key=lambda k: abs(points[k].think_rate - rate)) for rate in wanted}
    body = [
        [
            "never" if math.isinf(point.threshold) else f"{point.threshold:.4g}",
            percent(point.think_rate),
            percent(point.accuracy),
            number(point.tokens),
        ]
        for point in (points[k] for k in sorted(nearest))
    ]
    return Grid(
        "Accuracy and cost over the threshold", ["think iff P(think) >=", "think %", "accuracy %", "tokens"], body
    )


def _driver(summary: Summary) -> Grid:
    driver = summary.driver
    body = [
        ["share of one processor, whole run", f"{percent(driver.cpu_share)} %"],
        ["share in the busiest block", f"{percent(driver.busiest_share)} % ({driver.busiest_load})"],
    ]
    if driver.late_p99_ms is not None:
        body.append(["requests sent late by, p99 ms (counted in the latencies)", number(driver.late_p99_ms)])
    if driver.is_bottleneck:
        body.append(["warning", "the load test itself may have been the bottleneck"])
    return Grid("The load test itself", ["", "value"], body)


def number(value: float | None) -> str:
    """Return one decimal."""
    return NONE if value is None else f"{value:.1f}"


def ratio(value: float | None) -> str:
    """Return two decimals."""
    return NONE if value is None else f"{value:.2f}"


def percent(share: float | None) -> str:
    """Return a share in per cent with one decimal."""
    return NONE if share is None else f"{100 * share:.1f}"


def several(values: Iterable[float | None]) -> str:
    """Return numbers with slashes between them, or nothing where the first is unknown."""
    shown = [number(value) for value in values]
    return NONE if shown[0] == NONE else " / ".join(shown)


def interval(estimate: Estimate | None, factor: float = 1) -> str:
    """Return ``value [low, high]``."""
    if estimate is None:
        return NONE
    return f"{factor * estimate.value:.1f} [{factor * estimate.low:.1f}, {factor * estimate.high:.1f}]"


def counts(found: Mapping[str, int]) -> str:
    """Return counts by name."""
    return ", ".join(f"{name} {count}" for name, count in sorted(found.items())) or NONE
