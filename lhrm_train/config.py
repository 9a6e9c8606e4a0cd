"""Every training setting with its default and its source, and the strict TOML loader."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_type_hints

DecisionObjective = Literal["ratio", "forcing_rate", "winner"]


class ConfigError(ValueError):
    """A setting that does not exist or has a value that cannot be used."""


@dataclass(frozen=True)
class HFTConfig:
    """Hybrid Fine-Tuning: supervised training on both modes, unpaired."""

    steps: int = 3400
    rows: int = 24
    row_length: int = 224
    think_share: float = 0.5
    lr: float = 3e-3
    muon_lr: float = 0.02
    betas: tuple[float, float] = (0.9, 0.98)
    warmup_steps: int = 40
    constant_share: float = 0.4
    final_lr_share: float = 0.02
    grad_clip: float = 1.0
    save_every: int = 200

    def __post_init__(self) -> None:
        """Refuse a think share that would hide one of the modes."""
        if not 0 < self.think_share < 1:
            raise ConfigError(f"hft.think_share = {self.think_share}: both modes must be seen, so 0 < share < 1")


@dataclass(frozen=True)
class HGPOConfig:
    """Hybrid Group Policy Optimization (arXiv 2505.14631, section 3.3). The paper's values in parentheses.

    decision_objective chooses how the opening tag is trained; the tag is forced, never sampled:
      ratio         ratio to the policy that scored the rollout (the paper's formula read literally)
      forcing_rate  behaviour probability = the forcing rate 0.5 (AdaptThink, arXiv 2505.13417)
      winner        only the winning mode's tag is pushed up; saturates like cross-entropy (departure)
    """

    steps: int = 80
    prompts: int = 128  # (256)
    rollouts: int = 4  # N; (4), half per mode
    temperature: float = 1.0  # (not stated)
    max_new_tokens: int = 96
    alpha: float = 1.0  # (1.0) weight of the inter-group term on the tag
    delta: float = 0.2  # (0.2) think must win by more than this
    beta: float = 0.01  # (0.001) KL weight
    clip: float = 0.5  # (0.5)
    decision_objective: DecisionObjective = "winner"  # (ratio)
    decision_clip: float = 0.9  # clip of the tag's ratio (0.5)
    decision_in_kl: bool = False  # (True) whether the tag is part of the KL term
    mask_both_fail: bool = True  # (False) no inter-group push where both modes fail
    reference: Literal["initial", "rollout"] = "initial"  # (rollout) what the KL is measured against
    lr: float = 2e-4  # (1e-6)
    betas: tuple[float, float] = (0.9, 0.95)
    warmup_updates: int = 5
    decay_from: float = 0.4  # lr falls linearly to 3 % from this share of the run on (constant)
    minibatches: int = 3
    epochs: int = 2
    grad_clip: float = 1.0
    row_length: int = 320  # longest prompt and max_new_tokens
    micro_rows: int = 36
    save_every: int = 10

    def __post_init__(self) -> None:
        """Refuse groups that cannot be split into two halves."""
        if self.rollouts < 2 or self.rollouts % 2:
            raise ConfigError(f"hgpo.rollouts = {self.rollouts}: N must be even, half per mode")


@dataclass(frozen=True)
class EvalConfig:
    """Evaluation and Hybrid Accuracy."""

    prompts: int = 2400
    samples: int = 8
    temperature: float = 1.0
    margin: float = 0.2
    max_new_tokens: int = 96
    seed: int = 20_001
    split: str = "test"
    context_questions: int = 500
    hft_samples: int = 4  # per mode, for the checkpoint before HGPO
    validation_samples: int = 4  # per mode, on half as many prompts


@dataclass(frozen=True)
class BaseConfig:
    """Shape of the random base."""

    name: str = "lhrm-nano"
    hidden_size: int = 192
    layers: int = 4
    heads: int = 6
    intermediate_size: int = 512
    vocab_size: int = 1024
    max_positions: int = 1024


@dataclass(frozen=True)
class RunConfig:
    """One training run, from a random base to an evaluated checkpoint."""

    hft_seed: int = 0
    hgpo_seed: int = 0
    threads: int = 0  # 0 = all cores
    base: BaseConfig = field(default_factory=BaseConfig)
    hft: HFTConfig = field(default_factory=HFTConfig)
    hgpo: HGPOConfig = field(default_factory=HGPOConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)


def _build(cls: type, raw: dict[str, Any], where: str) -> Any:
    hints = get_type_hints(cls)
    known = {f.name for f in dataclasses.fields(cls)}
    values = {}
    for key, value in raw.items():
        if key not in known:
            raise ConfigError(f"unknown setting {where}{key}; known: {', '.join(sorted(known))}")
        kind = hints[key]
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            values[key] = _build(kind, value, f"{where}{key}.")
        else:
            values[key] = _coerce(kind, value, f"{where}{key}")
    return cls(**values)


def _coerce(kind: Any, value: Any, name: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if getattr(kind, "__origin__", None) is tuple:
        return tuple(float(v) for v in value)
    choices = getattr(kind, "__args__", None)
    if choices is not None:
        if value not in choices:
            raise ConfigError(f"{name} = {value!r}; known: {', '.join(map(repr, choices))}")
        return value
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise ConfigError(f"{name} = {value!r} is not {kind.__name__}")
    return value


def _override(raw: dict[str, Any], assignment: str) -> None:
    name, sign, text = assignment.partition("=")
    if not sign:
        raise ConfigError(f"override {assignment!r} is not of the form a.b=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *path, last = name.strip().split(".")
    for part in path:
        raw = raw.setdefault(part, {})
        if not isinstance(raw, dict):
            raise ConfigError(f"override {assignment!r}: {part} is not a table")
    raw[last] = value


def load_config(path: Path | None, overrides: list[str] | None = None) -> RunConfig:
    """Read a run's TOML and apply ``a.b=value`` overrides. Raises ConfigError naming the offending key."""
    raw: dict[str, Any] = {}
    if path is not None:
        try:
            raw = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError) as exc:
            raise ConfigError(f"cannot read {path}: {exc}") from exc
    for assignment in overrides or []:
        _override(raw, assignment)
    config: RunConfig = _build(RunConfig, raw, "")
    return config
