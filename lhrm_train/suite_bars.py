"""The bars that a checkpoint of the task suite is held against, from the raw rows of its evaluation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lhrm_train.bars import Bar, at_least, at_most, points
from lhrm_train.intervals import Interval, bootstrap
from lhrm_train.report import counted, shown, summarise, upper_levels
from lhrm_train.rows import ContextRow, Row, mean

THINK_LOSS = 0.01  # free choice below the model's own always-think
HFT_LOSS = 0.015  # free choice below always-think before HGPO
TOKENS = 0.50  # of always-think's; or
ORACLE_GAP = 0.03  # the cut below the oracle's
HACC, HACC_UPPER = 0.97, 0.96
VIOLATIONS = 0.005
LEAKS = "no-think outputs with a tag or too long"
FAILING = 0.30  # share of the prompts that no-think fails, so that the mix is worth choosing on
CONTEXT_LOSS = 0.02  # free choice in a conversation below the bare question
CONTEXTS = ("system", "two turns")
RESAMPLES, CONFIDENCE = 1000, 0.95


def suite_bars(test: Sequence[Row], before: Sequence[Row], contexts: Sequence[ContextRow], margin: float) -> list[Bar]:
    """Return every bar with what the rows say; `before` are those of the checkpoint before HGPO, empty if unknown."""
    s, upper = summarise(test, margin), counted(upper_levels(test))
    found = [_loss("always-think", s.accuracy_free - s.accuracy_think, THINK_LOSS)]
    if before:
        hft = summarise(before, margin).accuracy_think
        found.append(_loss("always-think before HGPO", s.accuracy_free - hft, HFT_LOSS))
    cut = f"{shown(1 - s.cut, '.1%')} (oracle {shown(1 - s.oracle_cut, '.1%')})"
    required = f"at most {TOKENS:.0%}, or {100 * ORACLE_GAP:.0f} points over the oracle's"
    met = at_most(1 - s.cut, TOKENS) or at_least(s.cut, s.oracle_cut - ORACLE_GAP)
    return [
        *found,
        Bar("completion tokens, share of always-think's", "all", required, cut, met),
        _hacc("all", s.hacc, HACC),
        *([_hacc("levels 2 and up", summarise(upper, margin).hacc, HACC_UPPER)] if upper else []),
        _share("prompts failing in no-think", s.failing_no_think, f"at least {FAILING:.0%}", FAILING, most=False),
        _share(LEAKS, s.no_think_violations, f"at most {VIOLATIONS:.1%}", VIOLATIONS, most=True),
        *(_context(variant, contexts) for variant in CONTEXTS),
        _context("eight turns", contexts, counts=False),
    ]


def _loss(beside: str, value: float, most: float) -> Bar:
    required = f"at least {-100 * most:.1f} points"
    return Bar(f"free choice minus {beside}", "all", required, points(value), at_least(value, -most))


def _hacc(name: str, value: float, least: float) -> Bar:
    return Bar("Hybrid Accuracy", name, f"at least {least}", shown(value, ".4f"), at_least(value, least))


def _share(what: str, value: float, required: str, bar: float, *, most: bool) -> Bar:
    met = at_most(value, bar) if most else at_least(value, bar)
    return Bar(what, "all", required, shown(value, ".2%"), met)


def _context(variant: str, rows: Sequence[ContextRow], *, counts: bool = True) -> Bar:
    loss = context_loss(variant, rows)
    text = "-" if np.isnan(loss.value) else f"{points(loss.value)} [{100 * loss.low:+.1f}, {100 * loss.high:+.1f}]"
    required = f"at least {-100 * CONTEXT_LOSS:.0f} points" if counts else "-"
    met = at_least(loss.value, -CONTEXT_LOSS) if counts else None
    return Bar("free choice in a conversation minus bare", variant, required, text, met)


def context_loss(variant: str, rows: Sequence[ContextRow]) -> Interval:
    """Return the accuracy in `variant` minus that of the same bare questions, with its paired bootstrap interval.

    NaN where no question has both. Raises ValueError when rows of one of them are missing.
    """
    bare, other = (sorted((r for r in rows if r.variant == name), key=lambda r: r.index) for name in ("bare", variant))
    both = zip(bare, other, strict=True) if other else ()
    pairs = [(mean(b.scores), mean(o.scores)) for b, o in both if b.counts and o.counts]
    if not pairs:
        return Interval(np.nan, np.nan, np.nan)
    lost_P1 = np.array([[o - b] for b, o in pairs])
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(bootstrap(lost_P1, RESAMPLES, seed=0), [tail, 1 - tail])
    return Interval(float(lost_P1.mean()), float(low), float(high))
