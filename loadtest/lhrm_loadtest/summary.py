"""Everything a report shows, computed from the rows alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from .arms import MODES
from .errors import LoadTestError
from .figures import (
    ArmFigures,
    Difference,
    Group,
    Online,
    Price,
    arm_figures,
    difference,
    groups,
    online,
)
from .load import DriverFigures, GoodputRatio, StepFigures, driver_figures, goodput_ratios, knee, steps
from .pairs import CurvePoint, Oracle, OtherMix, Roles, choices, collect, curve, oracle, other_mixes, roles
from .rows import Row
from .slo import Slo


@dataclass(frozen=True)
class Summary:
    """What a run showed; `arms` are in the order of their modes.

    The baseline may be an arm of the run that was not measured yet; there are no differences then.
    """

    baseline: str
    roles: Roles
    arms: Mapping[str, ArmFigures]
    differences: Mapping[str, Difference]
    oracle: Oracle | None
    other_mixes: Sequence[OtherMix]
    curve: Sequence[CurvePoint]
    online: Online | None
    levels: Sequence[Group]
    tasks: Sequence[Group]
    sets: Sequence[Group]
    steps: Sequence[StepFigures]
    knees: Mapping[str, StepFigures]
    goodput: Sequence[GoodputRatio]
    driver: DriverFigures
    errors: Mapping[str, int]
    warmups: int

    @property
    def pairs(self) -> int:
        """Return how many pairs of the baseline and another arm are complete, in the arm that has the fewest.

        An arm alone counts its answers.
        """
        if self.differences:
            return min(one.pairs for one in self.differences.values())
        alone = self.arms.get(self.baseline)
        return 0 if alone is None else alone.requests - alone.errors


def summarise(
    rows: Sequence[Row],
    baseline: str | None = None,
    slos: Sequence[Slo] = (),
    price: Price | None = None,
    planned: Collection[str] = (),
) -> Summary:
    """Compute the summary of a run; without a `baseline` it is the arm that always thinks.

    `planned` are the arms of the run, of which some may have no rows yet.

    Raises LoadTestError when no request was measured or no arm has the name of the baseline.
    """
    measured = [row for row in rows if not row.warmup]
    if not measured:
        raise LoadTestError("no request was measured")
    asked = {row.arm: MODES.index(row.asked) for row in measured}
    names = sorted(asked, key=lambda name: (asked[name], name))
    parts = roles(measured)
    base = baseline or parts.think or names[-1]
    if base not in names and base not in planned:
        raise LoadTestError(f"baseline = {base!r}: the arms with rows are {', '.join(names)}")
    others = [name for name in names if name != base] if base in names else []
    pairs = collect(measured)
    found = choices(pairs, parts)
    loads = steps(rows, names, slos)
    return Summary(
        baseline=base,
        roles=parts,
        arms={name: arm_figures([row for row in measured if row.arm == name], price) for name in names},
        differences={name: difference(pairs, name, base, price) for name in others},
        oracle=oracle(found),
        other_mixes=other_mixes(found),
        curve=curve(found),
        online=online(pairs, parts.auto, parts.think) if parts.auto and parts.think else None,
        levels=groups(pairs, names, lambda pair: pair.level),
        tasks=groups(pairs, names, lambda pair: pair.task),
        sets=groups(pairs, names, lambda pair: "closed" if pair.closed else "open"),
        steps=loads,
        knees={name: best for name in names if (best := knee(step for step in loads if step.arm == name))},
        goodput=goodput_ratios(rows, names, base, slos),
        driver=driver_figures(rows),
        errors=Counter(row.error for row in measured if row.error is not None),
        warmups=len(rows) - len(measured),
    )
