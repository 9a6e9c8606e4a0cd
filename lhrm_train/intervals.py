"""Bootstrap intervals of the reported figures, paired over prompts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from lhrm_train.report import Outcome, counted, markdown, outcome
from lhrm_train.rows import Row

Values = NDArray[np.float64]
BLOCK = 256  # resamples drawn together: bounds the memory at BLOCK x prompts counts


@dataclass(frozen=True)
class Interval:
    """A figure of the sample with the percentile bounds of its resamples; NaN where it was not measured."""

    value: float
    low: float
    high: float

    def shown(self, form: str) -> str:
        """Return ``value [low, high]`` in a format such as ``.3f``; a dash for NaN."""
        if math.isnan(self.value):
            return "-"
        return f"{self.value:{form}} [{self.low:{form}}, {self.high:{form}}]"


# Every figure is a function of the mean outcome, so that both sides of a difference or ratio share their prompts.
FIGURES: Mapping[str, Callable[[Mapping[str, Values]], Values]] = MappingProxyType(
    {
        "accuracy always think": lambda means: means["think"],
        "accuracy always no-think": lambda means: means["no_think"],
        "accuracy free choice": lambda means: means["free"],
        "accuracy oracle": lambda means: means["oracle"],
        "free choice minus always think": lambda means: means["free"] - means["think"],
        "tokens always think": lambda means: means["tokens_think"],
        "tokens free choice": lambda means: means["tokens_free"],
        "token cut": lambda means: 1 - means["tokens_free"] / means["tokens_think"],
        "oracle cut": lambda means: 1 - means["tokens_oracle"] / means["tokens_think"],
        "think rate": lambda means: means["thinks"],
        "Hybrid Accuracy": lambda means: means["hit"],
        "Hybrid Accuracy always think": lambda means: means["best_think"],
        "Hybrid Accuracy always no-think": lambda means: means["best_no_think"],
    }
)


def bootstrap(values_PF: Values, resamples: int, seed: int) -> Values:
    """Return the means of `resamples` resamples of the prompts, shape (R, F): P drawn of P, with replacement."""
    prompts = len(values_PF)
    rng = np.random.default_rng(seed)
    shares_P = np.full(prompts, 1 / prompts)
    blocks = []
    for start in range(0, resamples, BLOCK):
        counts_RP = rng.multinomial(prompts, shares_P, size=min(BLOCK, resamples - start))
        blocks.append(counts_RP @ values_PF / prompts)
    return np.concatenate(blocks)


def intervals(
    rows: Sequence[Row], margin: float, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> dict[str, Interval]:
    """Return every figure with its percentile interval. Raises ValueError on no rows or impossible settings.

    The prompts are resampled, the samples of a prompt are not: the interval tells what other prompts of the same
    kind could give.
    """
    if resamples < 1 or not 0 < confidence < 1:
        raise ValueError(f"resamples = {resamples}, confidence = {confidence}: need 1 or more, and within (0, 1)")
    outcomes = [astuple(outcome(row, margin)) for row in counted(rows)]
    if not outcomes:
        raise ValueError("no rows to resample")
    values_PF = np.array(outcomes, dtype=np.float64)
    names = [field.name for field in fields(Outcome)]
    # Row 0 is the sample itself.
    means_RF = np.vstack([values_PF.mean(axis=0), bootstrap(values_PF, resamples, seed)])
    means = {name: means_RF[:, column] for column, name in enumerate(names)}
    tail = (1 - confidence) / 2
    out = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        for name, figure in FIGURES.items():
            value, *resampled = figure(means)
            low, high = np.quantile(resampled, [tail, 1 - tail])
            out[name] = Interval(float(value), float(low), float(high))
    return out


def interval_table(found: Mapping[str, Interval], confidence: float) -> str:
    """Return the intervals as Markdown; figures that were not measured are left out."""
    lines = []
    for name, interval in found.items():
        form = ".1f" if name.startswith("tokens") else ".3f"
        if not math.isnan(interval.value):
            lines.append([name, interval.shown(form)])
    return markdown(["figure", f"value [{confidence * 100:g} % interval]"], lines)
