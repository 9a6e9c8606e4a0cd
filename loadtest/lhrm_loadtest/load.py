"""Throughput and goodput at every step of the load, where the knee is, and what the driver itself used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from .estimate import mean, quantile
from .figures import latency_quantiles
from .rows import Row
from .slo import Slo, latency_ms

BUSY_SHARE = 0.8
# Loads that count for the best goodput: all, and those at which most requests are within the SLO.
SHARES = (0.0, 0.9)


@dataclass(frozen=True)
class Load:
    """What was offered: requests at a time, arrivals per second, or a trace where both are None."""

    concurrency: int | None
    rate: float | None

    def __str__(self) -> str:
        if self.concurrency is not None:
            return f"{self.concurrency} at a time"
        return "trace" if self.rate is None else f"{self.rate:g}/s"

    @property
    def size(self) -> float:
        """Return the place of this load on an axis."""
        return float(self.concurrency or self.rate or 0)


@dataclass(frozen=True)
class StepFigures:
    """One arm under one load.

    `window_s` is how long the load was full: from the first measured request's arrival to the last one's, summed over
    blocks. `throughput` is requests answered in it per second, `tokens_per_s` their completion tokens per second.
    `met` is the share of the measured requests within each SLO, `goodput` the requests within it per second of the
    window. `power` is throughput over mean duration.
    """

    arm: str
    load: Load
    requests: int
    errors: int
    window_s: float
    throughput: float | None
    tokens_per_s: float | None
    first_answer_ms: tuple[float | None, ...]
    total_mean_ms: float | None
    met: Mapping[str, float]
    goodput: Mapping[str, float | None]

    @property
    def power(self) -> float | None:
        """Return throughput over mean duration, per second squared; None where either is unknown."""
        return 1000 * self.throughput / self.total_mean_ms if self.throughput and self.total_mean_ms else None


@dataclass(frozen=True)
class GoodputRatio:
    """The best goodput of an arm over the loads as a multiple of the baseline's; low and high over the repeats.

    Each arm is taken at its own best load among those at which at least `share` of its requests are within the SLO.
    """

    slo: str
    share: float
    arm: str
    best: float
    best_load: Load
    baseline: float
    baseline_load: Load
    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class DriverFigures:
    """The load test's own share of one processor, in the busiest block and over all, and how late it sent requests.

    `late_p99_ms` is from the scheduled arrival to the sending, open loop alone.
    """

    cpu_share: float
    busiest_share: float
    busiest_load: Load
    late_p99_ms: float | None

    @property
    def is_bottleneck(self) -> bool:
        """Whether the driver was so busy that it may have measured itself."""
        return self.busiest_share > BUSY_SHARE


def load_of(row: Row) -> Load:
    """Return the load under which a row was made."""
    return Load(row.concurrency, row.rate)


def steps(rows: Sequence[Row], arms: Sequence[str], slos: Sequence[Slo]) -> list[StepFigures]:
    """Return the figures of every arm under every load, in the order of the loads' size."""
    by_load: dict[Load, list[Row]] = defaultdict(list)
    for row in rows:
        by_load[load_of(row)].append(row)
    loads = sorted(by_load, key=lambda load: load.size)
    return [_step(load, arm, by_load[load], slos) for load in loads for arm in arms if _asked(by_load[load], arm)]


def _asked(rows: Iterable[Row], arm: str) -> bool:
    return any(row.arm == arm and not row.warmup for row in rows)


def _step(load: Load, arm: str, rows: Sequence[Row], slos: Sequence[Slo]) -> StepFigures:
    measured = [row for row in rows if row.arm == arm and not row.warmup]
    window_s, inside = _windows(rows, arm)
    answered = [row for row in inside if row.reply is not None]
    durations = [ms for row in measured if row.error is None and (ms := latency_ms(row, "total")) is not None]
    tokens = sum(row.reply.completion_tokens for row in answered if row.reply is not None)

    def per_s(count: int) -> float | None:
        return count / window_s if window_s else None

    return StepFigures(
        arm=arm,
        load=load,
        requests=len(measured),
        errors=sum(row.error is not None for row in measured),
        window_s=window_s,
        throughput=per_s(len(answered)),
        tokens_per_s=per_s(tokens),
        first_answer_ms=latency_quantiles([row for row in measured if row.error is None], "first_answer"),
        total_mean_ms=mean(durations),
        met={str(slo): sum(map(slo.met, measured)) / len(measured) for slo in slos},
        goodput={str(slo): per_s(sum(map(slo.met, inside))) for slo in slos},
    )


def _windows(rows: Iterable[Row], arm: str) -> tuple[float, list[Row]]:
    """Return the seconds under full load and the arm's requests, warm-up included, that ended within them."""
    blocks: dict[tuple[int, int], list[Row]] = defaultdict(list)
    for row in rows:
        blocks[row.block, row.session].append(row)
    window_ms, inside = 0.0, []
    for block in blocks.values():
        due = [row.scheduled_ms for row in block if not row.warmup]
        if not due or not any(row.arm == arm for row in block):
            continue
        start, end = min(due), max(due)
        window_ms += end - start
        inside += [row for row in block if row.arm == arm and start < row.end_ms <= end]
    return window_ms / 1000, inside


def knee(figures: Iterable[StepFigures]) -> StepFigures | None:
    """Return the step with the most power (Kleinrock): more load adds more waiting than work. None below 3 steps."""
    known = [step for step in figures if step.power is not None]
    return max(known, key=lambda step: step.power or 0.0) if len(known) >= 3 else None


def best_goodput(figures: Iterable[StepFigures], arm: str, slo: str, share: float) -> tuple[float, Load] | None:
    """Return the highest goodput of an arm with its load, of those at which `share` of the requests are good.

    None where there is no such load.
    """
    mine = [step for step in figures if step.arm == arm and step.met[slo] >= share]
    known = [(value, step.load) for step in mine if (value := step.goodput[slo]) is not None]
    return max(known, key=lambda one: one[0]) if known else None


def goodput_ratios(rows: Sequence[Row], arms: Sequence[str], baseline: str, slos: Sequence[Slo]) -> list[GoodputRatio]:
    """Return the ratio of every arm's best goodput to the baseline's, for every SLO where both have some."""
    together = steps(rows, arms, slos)
    apart = [
        steps([row for row in rows if row.repeat == repeat], arms, slos)
        for repeat in sorted({row.repeat for row in rows})
    ]
    found = []
    for slo, share, arm in product(map(str, slos), SHARES, arms):
        mine, other = (best_goodput(together, name, slo, share) for name in (arm, baseline))
        if arm == baseline or mine is None or other is None or not other[0]:
            continue
        ratio = mine[0] / other[0]
        each = [value for one in apart if (value := _ratio(one, arm, baseline, slo, share)) is not None] or [ratio]
        found.append(GoodputRatio(slo, share, arm, *mine, *other, ratio, min(each), max(each)))
    return found


def _ratio(figures: Sequence[StepFigures], arm: str, baseline: str, slo: str, share: float) -> float | None:
    mine, other = (best_goodput(figures, name, slo, share) for name in (arm, baseline))
    return mine[0] / other[0] if mine and other and other[0] else None


def driver_figures(rows: Sequence[Row]) -> DriverFigures:
    """Return what the driver used, from the last row that each block wrote."""
    last: dict[tuple[int, int], Row] = {}
    for row in rows:
        key = row.block, row.session
        if key not in last or row.driver_cpu_ms > last[key].driver_cpu_ms:
            last[key] = row
    timed = [row for row in last.values() if row.end_ms > 0]
    busiest = max(timed, key=lambda row: row.driver_cpu_ms / row.end_ms)
    late = [row.sent_ms - row.scheduled_ms for row in rows if row.concurrency is None]
    return DriverFigures(
        cpu_share=sum(row.driver_cpu_ms for row in timed) / sum(row.end_ms for row in timed),
        busiest_share=busiest.driver_cpu_ms / busiest.end_ms,
        busiest_load=load_of(busiest),
        late_p99_ms=quantile(late, 0.99),
    )
