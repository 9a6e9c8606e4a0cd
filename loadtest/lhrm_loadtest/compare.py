"""Hold one run against another: which figures of which arms got worse by more than a limit."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from .errors import LoadTestError
from .estimate import Estimate, ratio_estimate
from .grids import NONE, Grid
from .rows import Row
from .slo import Slo
from .summary import Summary
from .values import arm_values


@dataclass(frozen=True)
class Limit:
    """How much worse a figure may get; `relative` limits are shares of the first run's figure."""

    worse: float
    relative: bool

    def __str__(self) -> str:
        return f"{100 * self.worse:g}%" if self.relative else f"{self.worse:g}"

    def passed(self, before: float, after: float, lower_is_better: bool) -> bool:
        """Tell whether `after` is worse than `before` by more than the limit."""
        worse = after - before if lower_is_better else before - after
        return worse > self.worse * (abs(before) if self.relative else 1) + 1e-9


HIGHER_IS_BETTER = ("accuracy", "goodput")
PAIRED = ("accuracy", "completion_tokens")
# What a limit can be set for; without one, those of LIMITS hold.
COMPARED = (
    "accuracy",
    "completion_tokens",
    "completion_tokens_p95",
    "reasoning_tokens",
    "think_rate",
    "error_rate",
    "first_token_p95_ms",
    "first_answer_p50_ms",
    "first_answer_p95_ms",
    "total_p95_ms",
    "goodput",
)
LIMITS: Mapping[str, Limit] = MappingProxyType(
    {
        "accuracy": Limit(0.01, False),
        "completion_tokens": Limit(0.05, True),
        "error_rate": Limit(0.01, False),
        "first_answer_p95_ms": Limit(0.2, True),
        "total_p95_ms": Limit(0.2, True),
        "goodput": Limit(0.1, True),
    }
)


@dataclass(frozen=True)
class Change:
    """One figure of one arm in both runs; `paired` is after minus before on the prompts that both have.

    A figure that only the run before has counts as regressed.
    """

    arm: str
    figure: str
    before: float | None
    after: float | None
    limit: Limit
    regressed: bool
    paired: Estimate | None

    @property
    def is_missing(self) -> bool:
        """Whether the run after has not what the run before has."""
        return self.before is not None and self.after is None


def parse_limit(text: str) -> tuple[str, Limit]:
    """Read ``FIGURE=0.02`` or ``FIGURE=10%``. Raises LoadTestError."""
    name, equals, value = text.partition("=")
    if not equals or name not in COMPARED:
        known = ", ".join(COMPARED)
        raise LoadTestError(f"limit = {text!r}: expected FIGURE=NUMBER or FIGURE=NUMBER%, FIGURE one of {known}")
    try:
        number = float(value.removesuffix("%"))
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise LoadTestError(f"limit = {text!r}: {value!r} is not a number of 0 or more")
    relative = value.endswith("%")
    return name, Limit(number / 100 if relative else number, relative)


@dataclass(frozen=True)
class Side:
    """One of the two runs; `slo` is the objective of its goodput."""

    rows: Sequence[Row]
    summary: Summary
    slo: Slo | None = None


def compare(before: Side, after: Side, limits: Mapping[str, Limit], wanted: Collection[str] = ()) -> list[Change]:
    """Return the figures of the arms of the run before; `wanted` are those whose limit was asked for.

    Raises LoadTestError when the runs share no arm, when neither has a figure that is wanted, or when their goodput is
    under different objectives.
    """
    if before.slo is not None and after.slo is not None and before.slo != after.slo:
        raise LoadTestError(f"the runs have different SLOs, {before.slo} and {after.slo}: name one with --slo")
    arms = [name for name in before.summary.arms if name in after.summary.arms]
    if not arms:
        raise LoadTestError(f"no common arm: {', '.join(before.summary.arms)} against {', '.join(after.summary.arms)}")
    changes = []
    for arm in before.summary.arms:
        old = arm_values(before.summary, arm)
        new = arm_values(after.summary, arm) if arm in arms else {}
        for figure, limit in limits.items():
            if old[figure] is not None or new.get(figure) is not None:
                paired = paired_change(before.rows, after.rows, arm, figure)
                changes.append(_change(arm, figure, old[figure], new.get(figure), limit, paired))
    unknown = sorted(set(wanted) - {change.figure for change in changes})
    if unknown:
        hint = "; goodput needs --slo" if "goodput" in unknown else ""
        raise LoadTestError(f"limit = {', '.join(unknown)}: neither run has such a figure{hint}")
    return changes


def unlike(before: Side, after: Side) -> list[str]:
    """Return how the runs differ in what they should share, so that a change may come from there."""
    found = []
    missing = [name for name in before.summary.arms if name not in after.summary.arms]
    if missing:
        found.append(f"B has no rows of {', '.join(missing)}")
    loads = [dict.fromkeys(str(step.load) for step in side.summary.steps) for side in (before, after)]
    if loads[0] != loads[1]:
        found.append(f"the runs had different loads: {', '.join(loads[0])} against {', '.join(loads[1])}")
    return found


def _change(
    arm: str, figure: str, before: float | None, after: float | None, limit: Limit, paired: Estimate | None
) -> Change:
    if before is None or after is None:
        # What only the run after has cannot have got worse; what it lacks may be the worst of all.
        regressed = before is not None
    else:
        regressed = limit.passed(before, after, figure not in HIGHER_IS_BETTER)
    return Change(arm, figure, before, after, limit, regressed, paired)


def paired_change(before: Sequence[Row], after: Sequence[Row], arm: str, figure: str) -> Estimate | None:
    """Return the mean change of accuracy or completion tokens on common prompts, resampling them; else None.

    Prompts are the same where their ids are.
    """
    if figure not in PAIRED:
        return None
    old, new = _by_prompt(before, arm, figure), _by_prompt(after, arm, figure)
    shared = [prompt for prompt in old if prompt in new]
    return ratio_estimate([[(_mean(new[prompt]) - _mean(old[prompt]), 1.0)] for prompt in shared])


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _by_prompt(rows: Iterable[Row], arm: str, figure: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for row in rows:
        if row.arm != arm or row.warmup or row.reply is None:
            continue
        value = row.score if figure == "accuracy" else float(row.reply.completion_tokens)
        if value is not None:
            found.setdefault(row.prompt, []).append(value)
    return found


def changes_grid(changes: Iterable[Change]) -> Grid:
    """Return the table of a comparison."""
    head = ["arm", "figure", "before", "after", "paired change", "limit", ""]
    body = [
        [
            one.arm,
            one.figure,
            _shown(one.before),
            _shown(one.after),
            _interval(one.paired),
            str(one.limit),
            "missing" if one.is_missing else "regressed" if one.regressed else "",
        ]
        for one in changes
    ]
    return Grid("After against before", head, body)


def _shown(value: float | None) -> str:
    return NONE if value is None else f"{value:.4g}"


def _interval(estimate: Estimate | None) -> str:
    return NONE if estimate is None else f"{estimate.value:+.3g} [{estimate.low:+.3g}, {estimate.high:+.3g}]"
