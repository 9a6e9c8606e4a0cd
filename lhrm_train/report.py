"""Figures derived from raw evaluation rows: accuracy, tokens, Hybrid Accuracy and their baselines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lhrm_train.evaluate import ContextRow, Row
from lhrm_train.format import Mode

RANDOM_HACC = 0.5


def mean(values: Sequence[float]) -> float:
    """Arithmetic mean; raises ZeroDivisionError on an empty sequence."""
    return sum(values) / len(values)


def better_mode(row: Row, margin: float) -> Mode:
    """Return the mode that should be chosen (arXiv 2505.14631, Hybrid Accuracy).

    The higher mean score wins; means equal or within `margin` go to the mode with fewer tokens.
    """
    think, no_think = mean(row.think.scores), mean(row.no_think.scores)
    if abs(think - no_think) > margin:
        return Mode.THINK if think > no_think else Mode.NO_THINK
    return Mode.THINK if mean(row.think.tokens) < mean(row.no_think.tokens) else Mode.NO_THINK


@dataclass(frozen=True)
class Summary:
    """The figures of one group of rows. Shares are in [0, 1]; tokens are means per completion."""

    n: int
    accuracy_think: float
    accuracy_no_think: float
    accuracy_free: float
    accuracy_oracle: float
    tokens_think: float
    tokens_no_think: float
    tokens_free: float
    tokens_oracle: float
    think_rate: float
    p_think: float
    hacc: float
    hacc_always_think: float
    hacc_always_no_think: float
    failing_no_think: float
    no_think_violations: float

    @property
    def cut(self) -> float:
        """Completion tokens saved against always-think."""
        return 1 - self.tokens_free / self.tokens_think

    @property
    def oracle_cut(self) -> float:
        """Completion tokens an oracle saves that always picks the better mode."""
        return 1 - self.tokens_oracle / self.tokens_think


def _chosen(row: Row, think: bool) -> tuple[float, float]:
    samples = row.think if think else row.no_think
    return mean(samples.scores), mean(samples.tokens)


def summarise(rows: Sequence[Row], margin: float) -> Summary:
    """Compute the figures of `rows`; raises ValueError when there are none."""
    if not rows:
        raise ValueError("no rows to summarise")
    best = [better_mode(row, margin) is Mode.THINK for row in rows]
    free = [_chosen(row, row.chooses_think) for row in rows]
    oracle = [_chosen(row, think) for row, think in zip(rows, best, strict=True)]
    bad = [a or b for row in rows for a, b in zip(row.no_think.leaked, row.no_think.overlong, strict=True)]
    return Summary(
        n=len(rows),
        accuracy_think=mean([mean(row.think.scores) for row in rows]),
        accuracy_no_think=mean([mean(row.no_think.scores) for row in rows]),
        accuracy_free=mean([score for score, _ in free]),
        accuracy_oracle=mean([score for score, _ in oracle]),
        tokens_think=mean([mean(row.think.tokens) for row in rows]),
        tokens_no_think=mean([mean(row.no_think.tokens) for row in rows]),
        tokens_free=mean([tokens for _, tokens in free]),
        tokens_oracle=mean([tokens for _, tokens in oracle]),
        think_rate=mean([row.chooses_think for row in rows]),
        p_think=mean([row.p_think for row in rows]),
        hacc=mean([row.chooses_think == think for row, think in zip(rows, best, strict=True)]),
        hacc_always_think=mean(best),
        hacc_always_no_think=1 - mean(best),
        failing_no_think=mean([mean(row.no_think.scores) < 0.5 for row in rows]),
        no_think_violations=mean(bad),
    )


def group(rows: Sequence[Row], key: Callable[[Row], str]) -> dict[str, list[Row]]:
    """Group rows by `key`, in sorted order."""
    out: dict[str, list[Row]] = {}
    for row in rows:
        out.setdefault(key(row), []).append(row)
    return dict(sorted(out.items()))


def upper_levels(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of level 2 and up, where nothing can be learned by heart."""
    return [row for row in rows if row.level >= 2]


HEADER = "| group | n | think | no-think | free | tokens think | tokens free | cut | oracle cut | think rate | HAcc |"
RULE = "|---|---|---|---|---|---|---|---|---|---|---|"


def table_line(name: str, s: Summary) -> str:
    """Return one line of the Markdown table."""
    return (
        f"| {name} | {s.n} | {s.accuracy_think:.3f} | {s.accuracy_no_think:.3f} | {s.accuracy_free:.3f} "
        f"| {s.tokens_think:.1f} | {s.tokens_free:.1f} | {s.cut:.1%} | {s.oracle_cut:.1%} "
        f"| {s.think_rate:.2f} | {s.hacc:.3f} |"
    )


def _table(named: dict[str, Sequence[Row]], margin: float) -> str:
    return "\n".join([HEADER, RULE, *(table_line(name, summarise(rows, margin)) for name, rows in named.items())])


def overall_table(rows: Sequence[Row], margin: float) -> str:
    """Return the headline table: everything, levels 2 and up, open and closed questions."""
    named: dict[str, Sequence[Row]] = {
        "all": rows,
        "levels 2 and up": upper_levels(rows),
        "open questions": [row for row in rows if not row.closed],
        "closed questions": [row for row in rows if row.closed],
    }
    return _table({name: part for name, part in named.items() if part}, margin)


def detail_table(rows: Sequence[Row], margin: float) -> str:
    """Return the table per kind and level."""
    return _table(dict(group(rows, lambda row: f"{row.kind} {row.level}")), margin)


def baseline_lines(rows: Sequence[Row], margin: float) -> str:
    """Return Hybrid Accuracy beside its three baselines, overall and on levels 2 and up."""
    out = ["| Hybrid Accuracy | model | always-think | always-no-think | random |", "|---|---|---|---|---|"]
    for name, part in (("all", rows), ("levels 2 and up", upper_levels(rows))):
        s = summarise(part, margin)
        out.append(
            f"| {name} | {s.hacc:.3f} | {s.hacc_always_think:.3f} | {s.hacc_always_no_think:.3f} | {RANDOM_HACC:.3f} |"
        )
    return "\n".join(out)


def context_accuracy(rows: Sequence[ContextRow]) -> dict[str, float]:
    """Return free-choice accuracy per conversation context."""
    variants = sorted({row.variant for row in rows})
    return {v: mean([mean(row.scores) for row in rows if row.variant == v]) for v in variants}


def key_figures(rows: Sequence[Row], margin: float) -> dict[str, float]:
    """Return the figures a model card and the manifest quote."""
    s, upper = summarise(rows, margin), summarise(upper_levels(rows), margin)
    return {
        "prompts": s.n,
        "accuracy_think": round(s.accuracy_think, 4),
        "accuracy_no_think": round(s.accuracy_no_think, 4),
        "accuracy_free": round(s.accuracy_free, 4),
        "tokens_think": round(s.tokens_think, 2),
        "tokens_free": round(s.tokens_free, 2),
        "token_cut": round(s.cut, 4),
        "oracle_cut": round(s.oracle_cut, 4),
        "think_rate": round(s.think_rate, 4),
        "hacc": round(s.hacc, 4),
        "hacc_always_think": round(s.hacc_always_think, 4),
        "hacc_always_no_think": round(s.hacc_always_no_think, 4),
        "hacc_levels_2_up": round(upper.hacc, 4),
        "failing_no_think": round(s.failing_no_think, 4),
        "no_think_violations": round(s.no_think_violations, 5),
    }


def key_line(figures: dict[str, float]) -> str:
    """Return the figures as one line of name=value pairs."""
    return " ".join(f"{name}={value}" for name, value in figures.items())
