"""Every training setting with its default and its source, and the strict TOML loader."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from lhrm_train.bounds import ConfigError as ConfigError  # others raise it too
from lhrm_train.bounds import (
    Count,
    Inside,
    Margin,
    NotNegative,
    Pair,
    PartOfAll,
    Positive,
    Seed,
    Settings,
    Share,
    Whole,
    Words,
)
from lhrm_train.fit import refuse_defaults_for_a_pretrained_base, refuse_settings_without_effect
from lhrm_train.presets import with_preset
from lhrm_train.settings import build, names_in, override

DecisionObjective = Literal["ratio", "forcing_rate", "winner"]
ObjectiveName = Literal["hgpo", "grpo", "adaptthink"]
Source = Literal["suite", "jsonl", "datasets", "gym"]
Split = Literal["train", "validation", "test"]
STAGES = ("base", "hft", "hgpo", "eval")
SMALLEST_VOCABULARY = 263  # the bytes, padding, two turn markers and four tags


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
class DataConfig(Settings):
    """Where questions come from. `files` are JSONL paths (source jsonl), data set names or directories
    (datasets), or reasoning-gym task names (gym); the suite needs none.
    """

    source: Source = "suite"
    files: tuple[str, ...] = ()
    split: str = "train"
    fields: Fields = field(default_factory=Fields)
    limit: Whole = 0  # rows read per file; 0 = all. Items generated per gym task; 0 = 500
    seed: Seed = 0  # of gym tasks
    deduplicate: bool = True
    decontaminate: tuple[str, ...] = ()  # JSONL files whose questions must not occur here
    decontaminate_ngram: Count = 13  # words in a row that tell a question; see hygiene.py for text without spaces

    def __post_init__(self) -> None:
        """Refuse a source that has nothing to read."""
        super().__post_init__()
        if (self.source == "suite") == bool(self.files):
            raise ConfigError(f"files = {list(self.files)} does not go with source = {self.source!r}")


@dataclass(frozen=True)
class RewardConfig(Settings):
    """How answers are scored where an item does not name its own scorer, and what no-think must not do."""

    scorer: str = "exact"
    numeric_tolerance: NotNegative = 1e-6  # relative
    model: str = ""  # directory or name of a sequence-classification reward model
    model_threshold: float = 0.0  # its logit from which an answer counts as good
    no_think_max_tokens: Whole = 0  # longer no-think completions score 0; 0 = no limit
    leak_words: tuple[str, ...] = ("wait", "hmm", "let me think", "alternatively", "step by step")
    leak_words_fail: bool = False  # whether a no-think answer that holds a leak word scores 0


@dataclass(frozen=True)
class LoraConfig(Settings):
    """Low-rank adapters instead of full weights; rank 0 trains everything. Embeddings of the tags stay trained."""

    rank: Whole = 0
    alpha: Positive = 32.0
    dropout: PartOfAll = 0.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

    def __post_init__(self) -> None:
        """Refuse adapters on nothing."""
        super().__post_init__()
        if self.rank and not self.targets:
            raise ConfigError("targets = []: at least one kind of layer")


@dataclass(frozen=True)
class HFTConfig(Settings):
    """Hybrid Fine-Tuning: supervised training on both modes (arXiv 2505.14631, section 3.2; its values in
    parentheses).
    """

    steps: Count = 2400
    epochs: NotNegative = 0.0  # (3) passes over a finite data set; above 0 it replaces `steps`
    rows: Count = 10  # packed rows per micro-batch
    accumulation: Count = 1  # micro-batches per update
    row_length: Count = 512  # tokens; (32,768)
    batching: Literal["pack", "bucket"] = "pack"  # bucket: one sample per row, rows of similar length together
    think_share: PartOfAll = 0.5  # share of samples in think mode; 0 = as the data has it; (about 0.6)
    pairing: Literal["unpaired", "paired"] = "unpaired"  # whether one question may be seen in both modes per pass
    think_first_share: PartOfAll = 0.0  # share of the steps that see think samples only (arXiv 2510.12680)
    no_think_max_tokens: Whole = 0  # longer no-think answers are left out; 0 = no limit
    lr: Positive = 3e-3  # AdamW; (1e-4)
    muon_lr: NotNegative = 0.02  # Muon on the layers' matrices; 0 = AdamW for all
    betas: tuple[PartOfAll, PartOfAll] = (0.9, 0.98)
    weight_decay: NotNegative = 0.0
    warmup_steps: Whole = 40
    warmup_share: PartOfAll = 0.0  # (0.1) share of the steps; above 0 it replaces `warmup_steps`
    schedule: Literal["trapezoid", "cosine"] = "trapezoid"  # (cosine)
    constant_share: Share = 0.4
    final_lr_share: Share = 0.02
    grad_clip: Positive = 1.0
    gradient_checkpointing: bool = False
    shard: bool = False  # split weights, gradients and AdamW's state over the processes (FSDP2)
    lora: LoraConfig = field(default_factory=LoraConfig)
    save_every: Count = 200

    def __post_init__(self) -> None:
        """Refuse optimisers that do not go together."""
        super().__post_init__()
        if self.lora.rank and self.muon_lr:
            raise ConfigError(
                f"lora.rank = {self.lora.rank} does not go with muon_lr = {self.muon_lr}: Muon trains whole matrices, "
                "so set muon_lr to 0"
            )
        if self.shard and (self.lora.rank or self.muon_lr):
            raise ConfigError("shard = true goes with full weights and AdamW: set lora.rank and muon_lr to 0")


@dataclass(frozen=True)
class HGPOConfig(Settings):
    """Hybrid Group Policy Optimization (arXiv 2505.14631, section 3.3). The defaults are the preset `lhrm`, what
    measured best here; the values of the preset `paper` in parentheses.

    decision_objective chooses how the opening tag is trained; the tag is forced, never sampled:
      ratio         ratio to the policy that scored the rollout (the paper's formula read literally)
      forcing_rate  behaviour probability = the forcing rate 0.5 (AdaptThink, arXiv 2505.13417)
      winner        only the winning mode's tag is pushed up; saturates like cross-entropy (departure)
    """

    preset: Literal["lhrm", "paper"] = "lhrm"
    objective: ObjectiveName = "hgpo"  # a row of objectives.OBJECTIVES
    steps: Count = 60
    prompts: Count = 128  # (256)
    rollouts: Pair = 4  # N; (4), half per mode
    temperature: Positive = 1.0  # (not stated: 1.0)
    max_new_tokens: Count = 96  # (not stated: 8192)
    alpha: NotNegative = 1.0  # (1.0) weight of the inter-group term on the tag
    delta: Margin = 0.2  # (0.2) think must win by more than this
    delta_by_kind: dict[str, Margin] = field(default_factory=dict)  # (none) the margin of some kinds of question
    token_price: NotNegative = 0.0  # (0) added to the margin for each token that think costs more than no-think
    ties: Literal["all", "first", "shortest"] = "all"  # (first) which of the equally scored best rollouts win
    mask_both_fail: bool = True  # (False) no inter-group push where both modes fail
    decision_objective: DecisionObjective = "winner"  # (ratio)
    decision_weight: NotNegative = 1.0  # (1.0) factor on the tag's part of the policy gradient
    decision_clip: Positive = 0.9  # (0.5) clip of the tag's ratio
    decision_in_kl: bool = False  # (True) whether the tag is part of the KL term
    beta: NotNegative = 0.01  # (0.001) KL weight
    clip: Positive = 0.5  # (0.5)
    refresh_reference_every: Whole = 0  # (1) steps after which the KL's reference becomes the policy; 0 = never
    reference_rollouts: Count = 4  # think samples of the reference per prompt, where the objective asks for them
    lr: Positive = 2e-4  # (1e-6)
    betas: tuple[PartOfAll, PartOfAll] = (0.9, 0.95)  # (not stated)
    weight_decay: NotNegative = 0.0  # (not stated)
    warmup_updates: Whole = 5  # (0)
    decay_from: Share = 0.4  # (1.0: constant) lr falls linearly to 3 % from this share of the run on
    minibatches: Count = 3  # (1)
    epochs: Count = 2  # (1) passes over the rollouts of a step
    grad_clip: Positive = 1.0
    row_length: Count = 320  # (9216) longest prompt and max_new_tokens
    micro_rows: Count = 36  # (1) packed rows per forward pass
    generate_batch: Count = 128  # sequences sampled at once; a GPU takes more
    gradient_checkpointing: bool = False
    shard: bool = False  # split weights, gradients and AdamW's state over the processes (FSDP2)
    lora: LoraConfig = field(default_factory=LoraConfig)
    save_every: Count = 10

    def __post_init__(self) -> None:
        """Refuse groups that cannot be split into two halves, rows without room, and what adapters cannot do."""
        super().__post_init__()
        if self.rollouts % 2:
            raise ConfigError(f"rollouts = {self.rollouts}: N must be even, half per mode")
        if self.row_length < self.max_new_tokens + 2:
            raise ConfigError(
                f"row_length = {self.row_length} leaves no room for a prompt: it must exceed max_new_tokens = "
                f"{self.max_new_tokens} by 2 and more"
            )
        if self.shard and (self.lora.rank or self.objective == "adaptthink"):
            raise ConfigError("shard = true goes neither with lora.rank > 0 nor with objective = 'adaptthink'")
        if self.lora.rank and self.refresh_reference_every > 1:
            raise ConfigError(
                f"refresh_reference_every = {self.refresh_reference_every} does not go with lora.rank > 0: 0 or 1"
            )


@dataclass(frozen=True)
class EvalConfig(Settings):
    """Evaluation and Hybrid Accuracy."""

    prompts: Pair = 2000  # half as many for validation
    samples: Count = 8
    temperature: NotNegative = 1.0
    margin: Share = 0.2
    max_new_tokens: Count = 96
    seed: Seed = 80_001
    split: Split = "test"
    context_questions: Count = 1000  # each in every context; a quarter of `samples`
    hft_samples: Count = 2  # per mode, for the checkpoint before HGPO
    validation_samples: Count = 4  # per mode, on half as many prompts
    batch: Count = 128  # completions that are sampled together, without a server; a GPU takes more
    chunk: Count = 32  # prompts between two writes; a killed evaluation loses at most one chunk
    concurrency: Count = 16  # requests at a server at once
    request_timeout_s: Positive = 600.0
    retries: Whole = 6  # of a request that a busy server refused
    resamples: Count = 1000  # of the bootstrap
    confidence: Inside = 0.95  # of its intervals


@dataclass(frozen=True)
class BaseConfig(Settings):
    """What HFT starts from: `path` (directory, GGUF file or hub name), or without it a random Llama of this shape."""

    name: Words = "lhrm-nano"
    path: str = ""
    parameters: NotNegative = 0.0  # of `path`, for the estimates of a dry run that cannot load it
    rope_theta: NotNegative = 0.0  # raises the rotary base of `path`; 0 = as it is
    stretch_positions: Whole = 0  # raises the number of positions of `path`; 0 = as it is
    hidden_size: Count = 192
    layers: Count = 4
    heads: Count = 6
    intermediate_size: Count = 512
    vocab_size: int = 1024
    max_positions: Count = 1024

    def __post_init__(self) -> None:
        """Refuse a random base that cannot be built."""
        super().__post_init__()
        if self.path:
            return
        if self.hidden_size % (2 * self.heads):
            raise ConfigError(f"hidden_size = {self.hidden_size}: a multiple of 2 * heads = {2 * self.heads}")
        if self.vocab_size < SMALLEST_VOCABULARY:
            raise ConfigError(f"vocab_size = {self.vocab_size}: at least {SMALLEST_VOCABULARY}")


@dataclass(frozen=True)
class RunConfig(Settings):
    """One training run, from a base to an evaluated checkpoint."""

    stages: tuple[str, ...] = STAGES
    hft_seed: Seed = 0
    hgpo_seed: Seed = 0
    threads: Whole = 0  # 0 = all cores
    base: BaseConfig = field(default_factory=BaseConfig)
    data: DataConfig = field(default_factory=DataConfig)  # what HFT learns from
    prompts: DataConfig = field(default_factory=DataConfig)  # what HGPO answers
    test: DataConfig = field(default_factory=DataConfig)  # what the evaluation asks
    reward: RewardConfig = field(default_factory=RewardConfig)
    hft: HFTConfig = field(default_factory=HFTConfig)
    hgpo: HGPOConfig = field(default_factory=HGPOConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)

    def __post_init__(self) -> None:
        """Refuse stages that do not exist and settings that nothing would read."""
        super().__post_init__()
        if not self.stages:
            raise ConfigError(f"stages = []: at least one of {', '.join(STAGES)}")
        if unknown := [name for name in self.stages if name not in STAGES]:
            raise ConfigError(f"stages: unknown {unknown[0]!r}; known: {', '.join(STAGES)}")
        refuse_settings_without_effect(self)


def recipe_names() -> list[str]:
    """Return the names of the recipes that ship with the package."""
    return sorted(
        p.name.removesuffix(".toml")
        for p in resources.files("lhrm_train.recipes").iterdir()
        if p.name.endswith(".toml")
    )


def recipe_text(source: str) -> str:
    """Return the text of a recipe or of a TOML file. Raises ConfigError when there is neither."""
    if source in recipe_names():
        return (resources.files("lhrm_train.recipes") / f"{source}.toml").read_text(encoding="utf-8")
    try:
        return Path(source).read_text(encoding="utf-8")
    except (OSError, ValueError) as exc:  # ValueError: not text
        raise ConfigError(f"{source!r} is neither a recipe ({', '.join(recipe_names())}) nor a readable file") from exc


def load_config(source: str | Path | None, overrides: list[str] | None = None) -> RunConfig:
    """Read a run's TOML (a path or the name of a recipe) and apply ``a.b=value`` overrides.

    Raises ConfigError naming the offending setting.
    """
    raw: dict[str, Any] = {}
    if source is not None:
        try:
            raw = tomllib.loads(recipe_text(str(source)))
        except tomllib.TOMLDecodeError as exc:
            raise ConfigError(f"{source} is not TOML: {exc}") from exc
    for assignment in overrides or []:
        override(raw, assignment)
    given = with_preset(raw)
    config: RunConfig = build(RunConfig, given)
    refuse_defaults_for_a_pretrained_base(config, set(names_in(given)))
    return config
