"""The requests of all arms for one prompt side by side, and what other policies would have cost on them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from .estimate import Estimate, ratio_estimate
from .rows import Reply, Row

SHARES_THAT_NEED_IT = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)


@dataclass(frozen=True)
class Pair:
    """What the arms gave for one prompt and seed; failed requests are not in `rows`."""

    prompt: str
    task: str | None
    level: int | str | None
    closed: bool
    rows: dict[str, Row]

    def reply(self, arm: str) -> Reply:
        """Return the reply of an arm that the pair has."""
        reply = self.rows[arm].reply
        if reply is None:
            raise ValueError(f"the pair of prompt {self.prompt!r} has no reply of {arm!r}")
        return reply

    def tokens(self, arm: str) -> int:
        """Return the completion tokens of an arm that the pair has."""
        return self.reply(arm).completion_tokens


@dataclass(frozen=True)
class Roles:
    """Which arm always thinks, which never does and which decides, all of one model; None where there is none."""

    auto: str | None
    think: str | None
    no_think: str | None


@dataclass(frozen=True)
class Choice:
    """A pair with the scores and completion tokens of both modes, and what auto did where the model was asked."""

    prompt: str
    p_think: float | None
    think: tuple[float, int]
    no_think: tuple[float, int]
    auto_tokens: int | None = None

    @property
    def needs_thinking(self) -> bool:
        """Tell whether only thinking answers it right."""
        return self.think[0] > self.no_think[0]

    @property
    def best(self) -> tuple[float, int]:
        """Return score and tokens of the better mode: the higher score, with equal scores the fewer tokens."""
        return min(self.think, self.no_think, key=lambda one: (-one[0], one[1]))


@dataclass(frozen=True)
class CurvePoint:
    """The policy that thinks iff P(think) >= `threshold`; infinity never thinks. Means over the pairs."""

    threshold: float
    think_rate: float
    accuracy: float
    tokens: float


@dataclass(frozen=True)
class Oracle:
    """The better mode of every pair, as its own replies tell. `ratio` is its tokens over those of always-think."""

    pairs: int
    accuracy: float
    tokens: float
    think_rate: float
    ratio: Estimate | None


@dataclass(frozen=True)
class OtherMix:
    """Completion tokens over those of always-think, if `share` of the prompts needed thinking."""

    share: float
    auto: float
    oracle: float


def collect(rows: Iterable[Row]) -> list[Pair]:
    """Return the pairs of the measured requests, in the order they were planned."""
    found: dict[int, Pair] = {}
    for row in rows:
        if not row.warmup:
            pair = found.setdefault(row.pair, Pair(row.prompt, row.task, row.level, row.closed, {}))
            if row.reply is not None:
                pair.rows[row.arm] = row
    return list(found.values())


def complete(pairs: Iterable[Pair], *arms: str) -> list[Pair]:
    """Return the pairs that have a reply of every one of `arms`."""
    return [pair for pair in pairs if all(arm in pair.rows for arm in arms)]


def over_prompts(terms: Iterable[tuple[Pair | Choice, float, float]]) -> Estimate | None:
    """Estimate the ratio of the summed second and third members, resampling prompts."""
    clusters: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for pair, numerator, denominator in terms:
        clusters[pair.prompt].append((numerator, denominator))
    return ratio_estimate(list(clusters.values()))


def roles(rows: Sequence[Row]) -> Roles:
    """Return the first arm of each mode among those that ask the model of the first arm in auto."""
    auto = next((row for row in rows if row.asked == "auto"), None)
    model = auto.model if auto else rows[0].model
    first = {row.asked: row.arm for row in reversed(rows) if row.model == model}
    return Roles(first.get("auto"), first.get("think"), first.get("no_think"))


def choices(pairs: Iterable[Pair], arms: Roles) -> list[Choice]:
    """Return the pairs of which both modes were answered and scored."""
    found = []
    for pair in pairs:
        think, no_think = pair.rows.get(arms.think or ""), pair.rows.get(arms.no_think or "")
        if think is None or no_think is None or think.score is None or no_think.score is None:
            continue
        auto = pair.rows.get(arms.auto or "")
        decided = auto.reply if auto is not None else None
        both = [(row.score or 0.0, pair.tokens(row.arm)) for row in (think, no_think)]
        asked = (decided.p_think, decided.completion_tokens) if decided is not None else (None, None)
        found.append(Choice(pair.prompt, asked[0], both[0], both[1], asked[1]))
    return found


def oracle(found: Sequence[Choice]) -> Oracle | None:
    """Return what always taking the better mode would give; None without pairs of both modes."""
    if not found:
        return None
    return Oracle(
        pairs=len(found),
        accuracy=sum(one.best[0] for one in found) / len(found),
        tokens=sum(one.best[1] for one in found) / len(found),
        think_rate=sum(one.best == one.think for one in found) / len(found),
        ratio=over_prompts((one, one.best[1], one.think[1]) for one in found),
    )


def curve(found: Iterable[Choice]) -> list[CurvePoint]:
    """Return one point for each distinct P(think), from never thinking to always; empty without any."""
    known = sorted(((one.p_think, one) for one in found if one.p_think is not None), key=lambda item: -item[0])
    if not known:
        return []
    count = len(known)
    score = sum(one.no_think[0] for _, one in known)
    tokens = float(sum(one.no_think[1] for _, one in known))
    points = [CurvePoint(math.inf, 0.0, score / count, tokens / count)]
    for place, (p_think, one) in enumerate(known, start=1):
        score += one.think[0] - one.no_think[0]
        tokens += one.think[1] - one.no_think[1]
        # Pairs with the same P(think) cross the threshold together.
        if place == count or known[place][0] != p_think:
            points.append(CurvePoint(p_think, place / count, score / count, tokens / count))
    return points


def other_mixes(found: Iterable[Choice], shares: Sequence[float] = SHARES_THAT_NEED_IT) -> list[OtherMix]:
    """Weigh the prompts that need thinking against the others; empty unless auto answered some of both."""
    asked = [one for one in found if one.auto_tokens is not None]
    parts = [[one for one in asked if one.needs_thinking is needs] for needs in (True, False)]
    if not all(parts):
        return []
    means = [
        [fmean(tokens) for tokens in zip(*((one.auto_tokens, one.best[1], one.think[1]) for one in part), strict=True)]
        for part in parts
    ]

    def mixed(share: float, what: int) -> float:
        return share * means[0][what] + (1 - share) * means[1][what]

    return [OtherMix(share, mixed(share, 0) / mixed(share, 2), mixed(share, 1) / mixed(share, 2)) for share in shares]
