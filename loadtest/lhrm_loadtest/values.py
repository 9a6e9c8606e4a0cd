"""The main figures as ``name=value``: what is printed last, and what two runs are compared by."""

from __future__ import annotations

from .estimate import Estimate
from .load import GoodputRatio
from .summary import Summary

Values = dict[str, float | None]


def arm_values(summary: Summary, name: str) -> Values:
    """Return the figures of one arm that two runs can be compared by; None where there is none.

    Times are milliseconds, shares are within 0 and 1, goodput is requests per second at the first SLO.
    """
    arm = summary.arms[name]
    goodput = [step.goodput for step in summary.steps if step.arm == name]
    reached = [value for one in goodput for value in list(one.values())[:1] if value is not None]
    return {
        "accuracy": arm.accuracy,
        "completion_tokens": arm.completion.mean,
        "completion_tokens_p95": arm.completion.p95,
        "reasoning_tokens": arm.reasoning.mean,
        "think_rate": arm.think_rate,
        "error_rate": arm.errors / arm.requests,
        "first_token_p95_ms": arm.latency_ms["first_token"][2],
        "first_answer_p50_ms": arm.latency_ms["first_answer"][0],
        "first_answer_p95_ms": arm.latency_ms["first_answer"][2],
        "total_p95_ms": arm.latency_ms["total"][2],
        "goodput": max(reached, default=None),
    }


def value_line(summary: Summary) -> str:
    """Return the main figures on one line; ``na`` where there is none."""
    values: Values = {"pairs": summary.pairs, "errors": sum(arm.errors for arm in summary.arms.values())}
    for name in summary.arms:
        values |= {f"{figure}_{name}": value for figure, value in arm_values(summary, name).items()}
    for name, one in summary.differences.items():
        values |= bounds(f"saved_tokens_{name}", one.saved)
        values |= bounds(f"tokens_ratio_{name}", one.ratio)
        values |= bounds(f"accuracy_difference_{name}", one.accuracy)
    if summary.oracle is not None:
        values |= bounds("tokens_ratio_oracle", summary.oracle.ratio)
    values |= {f"goodput_ratio_{one.arm}_{_named(one)}": one.ratio for one in summary.goodput}
    if summary.online is not None and summary.online.pairs:
        values |= {
            "online_saved_tokens": summary.online.estimated_mean,
            "online_true_tokens": summary.online.true_mean,
            "online_bias_tokens": summary.online.bias.value if summary.online.bias else None,
        }
    values["driver_cpu_share"] = summary.driver.cpu_share
    return joined(values)


def _named(one: GoodputRatio) -> str:
    """Return the SLO as a part of a name, which must not hold an equals sign."""
    return one.slo.replace("<=", "_") + "ms" + (f"_at_{100 * one.share:.0f}_pct" if one.share else "")


def joined(values: Values) -> str:
    """Return ``name=value`` pairs on one line."""
    return " ".join(f"{name}={_shown(value)}" for name, value in values.items())


def bounds(name: str, estimate: Estimate | None) -> Values:
    """Return an estimate's value, low and high under three names."""
    if estimate is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}


def _shown(value: float | None) -> str:
    if value is None:
        return "na"
    return str(value) if isinstance(value, int) else f"{value:.4g}"
