"""Values that a preset sets before a run's own settings are applied."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

# `hgpo.preset = "paper"`: arXiv 2505.14631, sections 3 and 4.
PAPER: Mapping[str, Any] = MappingProxyType(
    {
        "prompts": 256,
        "rollouts": 4,
        "max_new_tokens": 8192,
        "alpha": 1.0,
        "delta": 0.2,
        "ties": "first",
        "mask_both_fail": False,
        "decision_objective": "ratio",
        "decision_clip": 0.5,
        "decision_in_kl": True,
        "beta": 0.001,
        "clip": 0.5,
        "refresh_reference_every": 1,
        "lr": 1e-6,
        "warmup_updates": 0,
        "decay_from": 1.0,
        "minibatches": 1,
        "epochs": 1,
        "row_length": 9216,
        "micro_rows": 1,
    }
)


def with_preset(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the settings `raw` with those of the preset that they name put under them."""
    table = raw.get("hgpo")
    if not isinstance(table, dict) or table.get("preset") != "paper":
        return raw
    return {**raw, "hgpo": {**PAPER, **table}}
