"""Settings that each are valid and do not fit together: one would be ignored, or ruin a pretrained base."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from lhrm_train.bounds import ConfigError
from lhrm_train.presets import PAPER
from lhrm_train.suite.mix import WORKLOAD

if TYPE_CHECKING:
    from lhrm_train.config import DataConfig, HFTConfig, HGPOConfig, RunConfig

# What a source of data does not look at.
UNUSED_BY_SOURCE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "suite": ("split", "fields", "limit", "seed", "deduplicate", "decontaminate", "decontaminate_ngram"),
        "jsonl": ("split", "seed"),
        "datasets": ("seed",),
        "gym": ("split", "fields"),
    }
)
# The suite's stream of demonstrations is endless, packed and drawn at one share of the modes.
UNUSED_BY_SUITE = ("epochs", "think_first_share", "pairing", "batching", "no_think_max_tokens")
OWN_TAG_OBJECTIVE = ("decision_objective", "alpha", "ties", "mask_both_fail")
UNUSED_BY_OBJECTIVE: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "hgpo": ("reference_rollouts",),
        "grpo": (*OWN_TAG_OBJECTIVE, "reference_rollouts"),
        "adaptthink": OWN_TAG_OBJECTIVE,
    }
)
# What must be chosen for a pretrained base, stage by stage, and what is usual.
NANO_DEFAULTS: Mapping[str, str] = MappingProxyType(
    {
        "hft.lr": "1e-5, with adapters 1e-4",
        "hft.muon_lr": "0",
        "hft.row_length": "4096",
        "hgpo.lr": "1e-6, with adapters 1e-5",
        "hgpo.max_new_tokens": "2048",
        "hgpo.row_length": "3072",
        "eval.max_new_tokens": "4096",
    }
)


def refuse_settings_without_effect(config: RunConfig) -> None:
    """Raise ConfigError for a setting that differs from its default where nothing would read it."""
    for place in ("data", "prompts", "test"):
        _data(place, getattr(config, place))
    if config.data.source == "suite":
        refuse_finite_settings(config.hft)
    _hft(config.hft)
    _hgpo(config.hgpo)
    if config.prompts.source == "suite":
        refuse_unknown_kinds(config.hgpo, WORKLOAD)
    if not config.base.path:
        _refuse("base", config.base, ("parameters", "rope_theta", "stretch_positions"), "base.path = ''")


def refuse_finite_settings(config: HFTConfig) -> None:
    """Raise ConfigError for a setting of HFT that needs a finite data set, where it is to learn from the suite."""
    _refuse("hft", config, UNUSED_BY_SUITE, "data.source = 'suite'")
    if not config.think_share:
        raise ConfigError("hft.think_share = 0.0: with data.source = 'suite' the share must be more than 0")


def refuse_unknown_kinds(config: HGPOConfig, kinds: Iterable[str]) -> None:
    """Raise ConfigError for a margin of a kind of question that is not asked."""
    known = sorted(kinds)
    if unknown := sorted(config.delta_by_kind.keys() - set(known)):
        raise ConfigError(f"hgpo.delta_by_kind.{unknown[0]}: no question is of that kind; known: {', '.join(known)}")


def refuse_defaults_for_a_pretrained_base(config: RunConfig, given: Iterable[str]) -> None:
    """Raise ConfigError naming the settings whose defaults suit a random nano only and that nobody gave.

    `given` are the dotted names of the settings in the file, its preset and the overrides.
    """
    if not config.base.path:
        return
    needed = [name for name in NANO_DEFAULTS if name.partition(".")[0] in config.stages]
    if missing := [name for name in needed if name not in set(given)]:
        usual = "; ".join(f"{name} ({NANO_DEFAULTS[name]})" for name in missing)
        raise ConfigError(
            f"base.path = {config.base.path!r} is pretrained, and the defaults are made for a small random base. "
            f"Give these, usual values in parentheses: {usual}"
        )


def _data(place: str, config: DataConfig) -> None:
    unused = UNUSED_BY_SOURCE[config.source]
    if config.source == "gym" and config.decontaminate:
        unused = ("split",)  # the columns of those files
    _refuse(place, config, unused, f"{place}.source = {config.source!r}")
    if not config.decontaminate:
        _refuse(place, config, ("decontaminate_ngram",), f"{place}.decontaminate = []")


def _hft(config: HFTConfig) -> None:
    if config.epochs:
        _refuse("hft", config, ("steps",), f"hft.epochs = {config.epochs}, which sets the number of steps")
    if config.warmup_share:
        _refuse("hft", config, ("warmup_steps",), f"hft.warmup_share = {config.warmup_share}")
    if config.schedule == "cosine":
        _refuse("hft", config, ("constant_share",), "hft.schedule = 'cosine'")
    _lora("hft", config)


def _hgpo(config: HGPOConfig) -> None:
    preset = PAPER if config.preset == "paper" else {}
    where = f"hgpo.objective = {config.objective!r}"
    _refuse("hgpo", config, UNUSED_BY_OBJECTIVE.get(config.objective, ()), where, preset)
    _lora("hgpo", config)


def _lora(place: str, config: HFTConfig | HGPOConfig) -> None:
    if not config.lora.rank:
        _refuse(f"{place}.lora", config.lora, ("alpha", "dropout", "targets"), f"{place}.lora.rank = 0")


def _refuse(
    place: str, section: Any, names: Iterable[str], where: str, preset: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Raise ConfigError if one of `names` in `section` has neither its default nor the value of `preset`."""
    for field in fields(section):
        if field.name not in names:
            continue
        default = field.default if field.default_factory is MISSING else field.default_factory()
        value = getattr(section, field.name)
        if value != preset.get(field.name, default):
            raise ConfigError(f"{place}.{field.name} = {value!r} has no effect with {where}")
