"""Figures derived from raw evaluation rows: accuracy, tokens, Hybrid Accuracy and their baselines."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lhrm_train.format import Mode
from lhrm_train.rows import ContextRow, Row, known_mean, mean

RANDOM_HACC = 0.5
# Means of a few samples are fractions such as 1 - 4/5: their difference may miss the margin by a rounding error.
MARGIN_TOLERANCE = 1e-9


def better_mode(row: Row, margin: float) -> Mode:
    """Return the mode that should be chosen (arXiv 2505.14631, Hybrid Accuracy).

    The higher mean score wins; means equal or within `margin` go to the mode with fewer tokens. A row without
    no-think samples has nothing to choose: think.
    """
    if not row.decides:
        return Mode.THINK
    think, no_think = row.think.score, row.no_think.score
    if abs(think - no_think) > margin + MARGIN_TOLERANCE:
        return Mode.THINK if think > no_think else Mode.NO_THINK
    return Mode.THINK if row.think.mean_tokens < row.no_think.mean_tokens else Mode.NO_THINK


@dataclass(frozen=True)
class Outcome:
    """What each policy gets on one prompt: mean score and mean completion tokens. NaN: no such samples.

    `hit`, `best_think` and `best_no_think` are 1 or 0: whether the free choice, always-think and always-no-think
    take the better mode; NaN where the model does not decide.
    """

    think: float
    no_think: float
    free: float
    oracle: float
    tokens_think: float
    tokens_no_think: float
    tokens_free: float
    tokens_oracle: float
    thinks: float
    hit: float
    best_think: float
    best_no_think: float


def outcome(row: Row, margin: float) -> Outcome:
    """Return what every policy gets on a row that counts."""
    best = better_mode(row, margin) is Mode.THINK
    free, oracle = (row.think if think else row.no_think for think in (row.chooses_think, best))
    return Outcome(
        think=row.think.score,
        no_think=row.no_think.score,
        free=free.score,
        oracle=oracle.score,
        tokens_think=row.think.mean_tokens,
        tokens_no_think=row.no_think.mean_tokens,
        tokens_free=free.mean_tokens,
        tokens_oracle=oracle.mean_tokens,
        thinks=float(row.chooses_think),
        hit=float(row.chooses_think == best) if row.decides else math.nan,
        best_think=float(best) if row.decides else math.nan,
        best_no_think=float(not best) if row.decides else math.nan,
    )


@dataclass(frozen=True)
class Summary:
    """The figures of one group of rows. Shares are in [0, 1]; tokens are means per completion. NaN: not measured.

    Rows that lack a valid sample in a sampled mode are in none of them; `n` counts the others.
    """

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
    def accuracy_random(self) -> float:
        """Expected accuracy of a fair coin per prompt."""
        return (self.accuracy_think + self.accuracy_no_think) / 2

    @property
    def tokens_random(self) -> float:
        """Expected completion tokens of a fair coin per prompt."""
        return (self.tokens_think + self.tokens_no_think) / 2

    @property
    def cut(self) -> float:
        """Completion tokens saved against always-think; NaN where that costs none."""
        return 1 - self.tokens_free / self.tokens_think if self.tokens_think else math.nan

    @property
    def oracle_cut(self) -> float:
        """Completion tokens an oracle saves that always picks the better mode; NaN where always-think costs none."""
        return 1 - self.tokens_oracle / self.tokens_think if self.tokens_think else math.nan


def _violation(leaked: bool | None, overlong: bool | None) -> bool | None:
    if leaked or overlong:
        return True
    return None if leaked is None or overlong is None else False


def counted(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that figures are made of."""
    return [row for row in rows if row.counts]


def summarise(rows: Sequence[Row], margin: float) -> Summary:
    """Compute the figures of `rows`; raises ValueError when none of them counts."""
    rows = counted(rows)
    if not rows:
        raise ValueError("no rows to summarise")
    outcomes = [outcome(row, margin) for row in rows]

    def over(figure: Callable[[Outcome], float]) -> float:
        return mean([figure(one) for one in outcomes])

    bad = [_violation(*flags) for row in rows for flags in zip(row.no_think.leaked, row.no_think.overlong, strict=True)]
    return Summary(
        n=len(rows),
        accuracy_think=over(lambda one: one.think),
        accuracy_no_think=over(lambda one: one.no_think),
        accuracy_free=over(lambda one: one.free),
        accuracy_oracle=over(lambda one: one.oracle),
        tokens_think=over(lambda one: one.tokens_think),
        tokens_no_think=over(lambda one: one.tokens_no_think),
        tokens_free=over(lambda one: one.tokens_free),
        tokens_oracle=over(lambda one: one.tokens_oracle),
        think_rate=over(lambda one: one.thinks),
        p_think=known_mean(row.p_think for row in rows),
        hacc=over(lambda one: one.hit),
        hacc_always_think=over(lambda one: one.best_think),
        hacc_always_no_think=over(lambda one: one.best_no_think),
        failing_no_think=known_mean(row.no_think.score < 0.5 if row.decides else None for row in rows),
        no_think_violations=known_mean(bad),
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


def shown(value: float, form: str) -> str:
    """Return `value` in a format such as ``.3f``, or a dash where it is NaN: it was not measured."""
    return "-" if math.isnan(value) else f"{value:{form}}"


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    rule = "|---" * len(header) + "|"
    return "\n".join([f"| {' | '.join(header)} |", rule, *(f"| {' | '.join(line)} |" for line in lines)])


def table_line(name: str, s: Summary) -> str:
    """Return one line of the Markdown table."""
    accuracies = [shown(value, ".3f") for value in (s.accuracy_think, s.accuracy_no_think, s.accuracy_free)]
    tokens = [shown(value, ".1f") for value in (s.tokens_think, s.tokens_free)]
    cuts = [shown(value, ".1%") for value in (s.cut, s.oracle_cut)]
    cells = [name, str(s.n), *accuracies, *tokens, *cuts, shown(s.think_rate, ".2f"), shown(s.hacc, ".3f")]
    return f"| {' | '.join(cells)} |"


def table(named: Mapping[str, Sequence[Row]], margin: float) -> str:
    """Return the table of named groups of rows; a group of which no row counts is left out."""
    counts = {name: part for name, rows in named.items() if (part := counted(rows))}
    return "\n".join([HEADER, RULE, *(table_line(name, summarise(rows, margin)) for name, rows in counts.items())])


def overall_table(rows: Sequence[Row], margin: float) -> str:
    """Return the headline table: everything, levels 2 and up, open and closed questions."""
    named: dict[str, Sequence[Row]] = {
        "all": rows,
        "levels 2 and up": upper_levels(rows),
        "open questions": [row for row in rows if not row.closed],
        "closed questions": [row for row in rows if row.closed],
    }
    return table(named, margin)


def detail_table(rows: Sequence[Row], margin: float) -> str:
    """Return the table per kind and level; level 0 means that the data has none."""

    def name(row: Row) -> str:
        kind = row.kind.replace("|", "/")  # a bar would end the cell
        return f"{kind} {row.level}" if row.level else kind

    return table(dict(group(rows, name)), margin)


def baseline_lines(rows: Sequence[Row], margin: float) -> str:
    """Return Hybrid Accuracy beside its three baselines, overall and, where there are any, on levels 2 and up."""
    lines = []
    for name, part in (("all", rows), ("levels 2 and up", upper_levels(rows))):
        if counted(part):
            s = summarise(part, margin)
            values = (s.hacc, s.hacc_always_think, s.hacc_always_no_think, RANDOM_HACC)
            lines.append([name, *(shown(value, ".3f") for value in values)])
    return markdown(["Hybrid Accuracy", "model", "always-think", "always-no-think", "random"], lines)


def policy_table(rows: Sequence[Row], margin: float) -> str:
    """Return the free choice between the policies it must be compared with.

    The oracle takes the better mode of every prompt.
    """
    s = summarise(rows, margin)
    policies = [("always think", s.accuracy_think, s.tokens_think, 1.0, s.hacc_always_think)]
    if not math.isnan(s.hacc):
        policies = [
            ("always no-think", s.accuracy_no_think, s.tokens_no_think, 0.0, s.hacc_always_no_think),
            ("random", s.accuracy_random, s.tokens_random, 0.5, RANDOM_HACC),
            ("free choice", s.accuracy_free, s.tokens_free, s.think_rate, s.hacc),
            # Always-think is right exactly where the oracle thinks.
            ("oracle", s.accuracy_oracle, s.tokens_oracle, s.hacc_always_think, 1.0),
            *policies,
        ]
    lines = [
        [name, shown(accuracy, ".3f"), shown(tokens, ".1f"), shown(rate, ".2f"), shown(hacc, ".3f")]
        for name, accuracy, tokens, rate, hacc in policies
    ]
    return markdown(["policy", "accuracy", "tokens", "think rate", "Hybrid Accuracy"], lines)


def context_accuracy(rows: Sequence[ContextRow]) -> dict[str, float]:
    """Return free-choice accuracy per conversation context."""
    asked = [row for row in rows if row.counts]
    variants = sorted({row.variant for row in asked})
    return {v: mean([mean(row.scores) for row in asked if row.variant == v]) for v in variants}


def key_figures(rows: Sequence[Row], margin: float) -> dict[str, float]:
    """Return the figures a model card and the manifest quote; NaN where something was not measured."""
    s, upper = summarise(rows, margin), counted(upper_levels(rows))
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
        **({"hacc_levels_2_up": round(summarise(upper, margin).hacc, 4)} if upper else {}),
        "failing_no_think": round(s.failing_no_think, 4),
        "no_think_violations": round(s.no_think_violations, 5),
    }


def key_line(figures: dict[str, float]) -> str:
    """Return the figures as one line of name=value pairs."""
    return " ".join(f"{name}={value}" for name, value in figures.items())
