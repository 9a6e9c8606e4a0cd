"""Every training setting with its default and its source, and the strict TOML loader."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, get_args, get_origin, get_type_hints

DecisionObjective = Literal["ratio", "forcing_rate", "winner"]
Source = Literal["suite", "jsonl", "datasets", "gym"]
STAGES = ("base", "hft", "hgpo", "eval")


class ConfigError(ValueError):
    """A setting that does not exist or has a value that cannot be used."""


@dataclass(frozen=True)
class Fields:
    """Names of the columns of a JSONL file or data set; a column that is absent counts as empty.

    A question is `messages` (chat turns) or `prompt` (one user turn). A last assistant turn, or `answer`, is
    the answer; `reasoning` its chain of thought, which may also stand in think tags before the answer.
    """

    messages: str = "messages"
    prompt: str = "prompt"
    reasoning: str = "reasoning"
    answer: str = "answer"
    mode: str = "mode"
    scorer: str = "scorer"
    kind: str = "kind"
    level: str = "level"


@dataclass(frozen=True)
class DataConfig:
    """Where questions come from. `files` are JSONL paths (source jsonl), data set names or directories
    (datasets), or reasoning-gym task names (gym); the suite needs none.
    """

    source: Source = "suite"
    files: tuple[str, ...] = ()
    split: str = "train"
    fields: Fields = field(default_factory=Fields)
    limit: int = 0  # rows read per file; 0 = all. Items generated per gym task; 0 = 500
    seed: int = 0  # of gym tasks
    deduplicate: bool = True
    decontaminate: tuple[str, ...] = ()  # JSONL files whose questions must not occur here
    decontaminate_ngram: int = 13  # words; a shared run of this length counts as the same question

    def __post_init__(self) -> None:
        """Refuse a source that has nothing to read."""
        if (self.source == "suite") == bool(self.files):
            raise ConfigError(f"files = {list(self.files)} does not go with source = {self.source!r}")


@dataclass(frozen=True)
class RewardConfig:
    """How answers are scored where an item does not name its own scorer, and what no-think must not do."""

    scorer: str = "exact"
    numeric_tolerance: float = 1e-6  # relative
    model: str = ""  # directory or name of a sequence-classification reward model
    model_threshold: float = 0.0  # its logit from which an answer counts as good
    no_think_max_tokens: int = 0  # longer no-think completions score 0; 0 = no limit
    leak_words: tuple[str, ...] = ("wait", "hmm", "let me think", "alternatively", "step by step")
    leak_words_fail: bool = False  # whether a no-think answer that holds a leak word scores 0


@dataclass(frozen=True)
class LoraConfig:
    """Low-rank adapters instead of full weights; rank 0 trains everything. Embeddings of the tags stay trained."""

    rank: int = 0
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class HFTConfig:
    """Hybrid Fine-Tuning: supervised training on both modes (arXiv 2505.14631, section 3.2; its values in
    parentheses).
    """

    steps: int = 3400
    epochs: float = 0.0  # (3) passes over a finite data set; above 0 it replaces `steps`
    rows: int = 24  # packed rows per micro-batch
    accumulation: int = 1  # micro-batches per update
    row_length: int = 224  # tokens; (32,768)
    batching: Literal["pack", "bucket"] = "pack"  # bucket: one sample per row, rows of similar length together
    think_share: float = 0.5  # share of samples in think mode; 0 = as the data has it; (about 0.6)
    pairing: Literal["unpaired", "paired"] = "unpaired"  # whether one question may be seen in both modes per pass
    think_first_share: float = 0.0  # share of the steps that see think samples only (arXiv 2510.12680)
    no_think_max_tokens: int = 0  # longer no-think answers are left out; 0 = no limit
    lr: float = 3e-3  # AdamW; (1e-4)
    muon_lr: float = 0.02  # Muon on the layers' matrices; 0 = AdamW for all
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.0
    warmup_steps: int = 40  # (10 % of the run)
    schedule: Literal["trapezoid", "cosine"] = "trapezoid"  # (cosine)
    constant_share: float = 0.4
    final_lr_share: float = 0.02
    grad_clip: float = 1.0
    gradient_checkpointing: bool = False
    shard: bool = False  # split weights, gradients and AdamW's state over the processes (FSDP2)
    lora: LoraConfig = field(default_factory=LoraConfig)
    save_every: int = 200

    def __post_init__(self) -> None:
        """Refuse a think share that would hide one of the modes."""
        if not 0 <= self.think_share < 1:
            raise ConfigError(f"hft.think_share = {self.think_share}: both modes must be seen, so 0 <= share < 1")
        if self.shard and (self.lora.rank or self.muon_lr):
            raise ConfigError(
                "hft.shard = true goes with full weights and AdamW: set hft.lora.rank and hft.muon_lr to 0"
            )


@dataclass(frozen=True)
class HGPOConfig:
    """Hybrid Group Policy Optimization (arXiv 2505.14631, section 3.3). The defaults are the preset `lhrm`, what
    measured best here; the values of the preset `paper` in parentheses.

    decision_objective chooses how the opening tag is trained; the tag is forced, never sampled:
      ratio         ratio to the policy that scored the rollout (the paper's formula read literally)
      forcing_rate  behaviour probability = the forcing rate 0.5 (AdaptThink, arXiv 2505.13417)
      winner        only the winning mode's tag is pushed up; saturates like cross-entropy (departure)
    """

    preset: Literal["lhrm", "paper"] = "lhrm"
    objective: str = "hgpo"  # a row of objectives.OBJECTIVES: hgpo, grpo, adaptthink
    steps: int = 80
    prompts: int = 128  # (256)
    rollouts: int = 4  # N; (4), half per mode
    temperature: float = 1.0  # (not stated: 1.0)
    max_new_tokens: int = 96  # (not stated: 8192)
    alpha: float = 1.0  # (1.0) weight of the inter-group term on the tag
    delta: float = 0.2  # (0.2) think must win by more than this
    delta_by_kind: dict[str, float] = field(default_factory=dict)  # (none) the margin of some kinds of question
    token_price: float = 0.0  # (0) added to the margin for each token that think costs more than no-think
    ties: Literal["all", "first", "shortest"] = "all"  # (first) which of the equally scored best rollouts win
    mask_both_fail: bool = True  # (False) no inter-group push where both modes fail
    decision_objective: DecisionObjective = "winner"  # (ratio)
    decision_weight: float = 1.0  # (1.0) factor on the tag's part of the policy gradient
    decision_clip: float = 0.9  # (0.5) clip of the tag's ratio
    decision_in_kl: bool = False  # (True) whether the tag is part of the KL term
    beta: float = 0.01  # (0.001) KL weight
    clip: float = 0.5  # (0.5)
    refresh_reference_every: int = 0  # (1) steps after which the KL's reference becomes the policy; 0 = never
    reference_rollouts: int = 4  # think samples of the reference per prompt, where the objective asks for them
    lr: float = 2e-4  # (1e-6)
    betas: tuple[float, float] = (0.9, 0.95)  # (not stated)
    weight_decay: float = 0.0  # (not stated)
    warmup_updates: int = 5  # (0)
    decay_from: float = 0.4  # (1.0: constant) lr falls linearly to 3 % from this share of the run on
    minibatches: int = 3  # (1)
    epochs: int = 2  # (1) passes over the rollouts of a step
    grad_clip: float = 1.0
    row_length: int = 320  # longest prompt and max_new_tokens
    micro_rows: int = 36  # packed rows per forward pass
    generate_batch: int = 64  # sequences sampled at once; a GPU takes more
    gradient_checkpointing: bool = False
    shard: bool = False  # split weights, gradients and AdamW's state over the processes (FSDP2)
    lora: LoraConfig = field(default_factory=LoraConfig)
    save_every: int = 10

    def __post_init__(self) -> None:
        """Refuse groups that cannot be split into two halves."""
        if self.rollouts < 2 or self.rollouts % 2:
            raise ConfigError(f"hgpo.rollouts = {self.rollouts}: N must be even, half per mode")
        if self.shard and (self.lora.rank or self.objective == "adaptthink"):
            raise ConfigError("hgpo.shard = true goes neither with hgpo.lora.rank > 0 nor with objective adaptthink")


# What `preset = "paper"` sets before the run's own settings are applied.
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
    batch: int = 64  # completions that are sampled together, without a server; a GPU takes more
    chunk: int = 32  # prompts between two writes; a killed evaluation loses at most one chunk
    concurrency: int = 16  # requests at a server at once
    request_timeout_s: float = 600.0
    retries: int = 6  # of a request that a busy server refused
    resamples: int = 1000  # of the bootstrap
    confidence: float = 0.95  # of its intervals

    def __post_init__(self) -> None:
        """Refuse what could not run."""
        for name in ("samples", "max_new_tokens", "batch", "chunk", "concurrency", "resamples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"eval.{name} = {getattr(self, name)}: at least 1")
        if not 0 < self.confidence < 1:
            raise ConfigError(f"eval.confidence = {self.confidence}: between 0 and 1, without either")


@dataclass(frozen=True)
class BaseConfig:
    """What HFT starts from: `path` (directory, GGUF file or hub name), or without it a random Llama of this shape."""

    name: str = "lhrm-nano"
    path: str = ""
    parameters: float = 0.0  # of `path`, for the estimates of a dry run that cannot load it
    hidden_size: int = 192
    layers: int = 4
    heads: int = 6
    intermediate_size: int = 512
    vocab_size: int = 1024
    max_positions: int = 1024


@dataclass(frozen=True)
class RunConfig:
    """One training run, from a base to an evaluated checkpoint."""

    stages: tuple[str, ...] = STAGES
    hft_seed: int = 0
    hgpo_seed: int = 0
    threads: int = 0  # 0 = all cores
    base: BaseConfig = field(default_factory=BaseConfig)
    data: DataConfig = field(default_factory=DataConfig)  # what HFT learns from
    prompts: DataConfig = field(default_factory=DataConfig)  # what HGPO answers
    test: DataConfig = field(default_factory=DataConfig)  # what the evaluation asks
    reward: RewardConfig = field(default_factory=RewardConfig)
    hft: HFTConfig = field(default_factory=HFTConfig)
    hgpo: HGPOConfig = field(default_factory=HGPOConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)

    def __post_init__(self) -> None:
        """Refuse stages that do not exist."""
        if unknown := [name for name in self.stages if name not in STAGES]:
            raise ConfigError(f"stages: unknown {unknown[0]!r}; known: {', '.join(STAGES)}")


def _build(cls: type, raw: dict[str, Any], where: str) -> Any:
    hints = get_type_hints(cls)
    known = {f.name for f in dataclasses.fields(cls)}
    if cls is HGPOConfig and raw.get("preset") == "paper":
        raw = {**PAPER, **raw}
    values = {}
    for key, value in raw.items():
        if key not in known:
            raise ConfigError(f"unknown setting {where}{key}; known: {', '.join(sorted(known))}")
        values[key] = _coerce(hints[key], value, f"{where}{key}")
    return cls(**values)


def _coerce(kind: Any, value: Any, name: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, dict):
            raise ConfigError(f"{name} = {value!r} is not a table")
        return _build(kind, value, f"{name}.")
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{name} = {value!r}; known: {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        return _coerce_tuple(arguments, value, name)
    if origin is dict:
        if not isinstance(value, dict):
            raise ConfigError(f"{name} = {value!r} is not a table")
        return {key: _coerce(arguments[1], item, f"{name}.{key}") for key, item in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise ConfigError(f"{name} = {value!r} is not {kind.__name__}")
    return value


def _coerce_tuple(arguments: tuple[Any, ...], value: Any, name: str) -> tuple[Any, ...]:
    endless = arguments[-1] is Ellipsis
    if not isinstance(value, list | tuple) or (not endless and len(value) != len(arguments)):
        wanted = "a list" if endless else f"a list of {len(arguments)}"
        raise ConfigError(f"{name} = {value!r} is not {wanted}")
    kinds = [arguments[0]] * len(value) if endless else list(arguments)
    return tuple(_coerce(kind, item, f"{name}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True)))


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


def recipe_names() -> list[str]:
    """Return the names of the recipes that ship with the package."""
    return sorted(
        p.name.removesuffix(".toml")
        for p in resources.files("lhrm_train.recipes").iterdir()
        if p.name.endswith(".toml")
    )


def _recipe_text(source: str) -> str:
    if source in recipe_names():
        return (resources.files("lhrm_train.recipes") / f"{source}.toml").read_text(encoding="utf-8")
    try:
        return Path(source).read_text(encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"{source!r} is neither a recipe ({', '.join(recipe_names())}) nor a readable file") from exc


def load_config(source: str | Path | None, overrides: list[str] | None = None) -> RunConfig:
    """Read a run's TOML (a path or the name of a recipe) and apply ``a.b=value`` overrides.

    Raises ConfigError naming the offending key.
    """
    raw: dict[str, Any] = {}
    if source is not None:
        try:
            raw = tomllib.loads(_recipe_text(str(source)))
        except tomllib.TOMLDecodeError as exc:
            raise ConfigError(f"{source} is not TOML: {exc}") from exc
    for assignment in overrides or []:
        _override(raw, assignment)
    config: RunConfig = _build(RunConfig, raw, "")
    return config
