"""Everything a report shows, computed from the rows alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
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
    """What a run showed; `arms` are in the order of their modes."""

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
        """Return how many pairs of the baseline and another arm are complete, in the arm that has the fewest."""
        return min((one.pairs for one in self.differences.values()), default=self.arms[self.baseline].requests)


def summarise(
    rows: Sequence[Row], baseline: str | None = None, slos: Sequence[Slo] = (), price: Price | None = None
) -> Summary:
    """Compute the summary of a run; without a `baseline` it is the arm that always thinks.

    Raises LoadTestError when no request was measured or no arm has the name of the baseline.
    """
    measured = [row for row in rows if not row.warmup]
    if not measured:
        raise LoadTestError("no request was measured")
    asked = {row.arm: MODES.index(row.asked) for row in measured}
    names = sorted(asked, key=lambda name: (asked[name], name))
    parts = roles(measured)
    base = baseline or parts.think or names[-1]
    if base not in names:
        raise LoadTestError(f"baseline = {base!r}: the arms with rows are {', '.join(names)}")
    pairs = collect(measured)
    found = choices(pairs, parts)
    loads = steps(rows, names, slos)
    return Summary(
        baseline=base,
        roles=parts,
        arms={name: arm_figures([row for row in measured if row.arm == name], price) for name in names},
        differences={name: difference(pairs, name, base, price) for name in names if name != base},
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
