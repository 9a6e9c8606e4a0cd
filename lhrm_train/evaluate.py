"""Evaluation: sample both modes on fixed prompts and keep one raw row per prompt."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from lhrm_train.checkpoint import load_model
from lhrm_train.config import EvalConfig
from lhrm_train.format import ChatTokenizer, Message, Mode, encode_chat
from lhrm_train.rewards import Judged, judge
from lhrm_train.rollout import choices, generate_forced, serving_copy
from lhrm_train.suite import mix

LONG_MARGIN_TOKENS = 4


@dataclass(frozen=True)
class ModeSamples:
    """The samples of one mode on one prompt. `tokens` counts the completion after the opening tag."""

    scores: tuple[float, ...]
    tokens: tuple[int, ...]
    leaked: tuple[bool, ...]
    overlong: tuple[bool, ...]


@dataclass(frozen=True)
class Row:
    """Everything measured on one prompt; every reported figure derives from these rows."""

    kind: str
    level: int
    closed: bool
    context: str
    key: str
    prompt_tokens: int
    p_think: float
    mass: float
    think: ModeSamples
    no_think: ModeSamples

    @property
    def chooses_think(self) -> bool:
        """The free choice: think iff P(think) >= 0.5."""
        return self.p_think >= 0.5


@dataclass(frozen=True)
class ContextRow:
    """Free-choice scores of one question in one conversation context."""

    variant: str
    kind: str
    level: int
    key: str
    p_think: float
    scores: tuple[float, ...]


def write_rows(path: Path, rows: Iterable[Row | ContextRow]) -> None:
    """Write rows as gzipped JSON lines; the same rows always give the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(asdict(row), separators=(",", ":")) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def read_rows(path: Path) -> list[Row]:
    """Read what write_rows wrote from Row objects."""
    rows = []
    for line in gzip.decompress(path.read_bytes()).decode().splitlines():
        raw = json.loads(line)
        for name in ("think", "no_think"):
            raw[name] = ModeSamples(**{key: tuple(value) for key, value in raw[name].items()})
        rows.append(Row(**raw))
    return rows


def read_context_rows(path: Path) -> list[ContextRow]:
    """Read what write_rows wrote from ContextRow objects."""
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    return [ContextRow(**{**raw, "scores": tuple(raw["scores"])}) for raw in map(json.loads, lines)]


def _mode_samples(judged: Sequence[Judged], reference_tokens: int) -> ModeSamples:
    return ModeSamples(
        scores=tuple(one.score for one in judged),
        tokens=tuple(one.completion_tokens for one in judged),
        leaked=tuple(one.leaked for one in judged),
        overlong=tuple(one.answer_tokens > reference_tokens + LONG_MARGIN_TOKENS for one in judged),
    )


def sample_rows(
    lm: PreTrainedModel, tokenizer: ChatTokenizer, items: Sequence[mix.Item], config: EvalConfig
) -> list[Row]:
    """Force each mode `config.samples` times on every item and record scores, tokens and the free choice."""
    torch.manual_seed(config.seed)
    prompts = [encode_chat(tokenizer, item.messages, None) for item in items]
    free = choices(lm, tokenizer, prompts)
    lengths = [len(tokenizer.encode_text(item.answer)) for item in items]
    by_mode: dict[Mode, list[ModeSamples]] = {}
    for mode in Mode:
        drawn = generate_forced(
            lm,
            tokenizer,
            prompts,
            mode,
            config.samples,
            config.temperature,
            config.max_new_tokens,
            progress=f"evaluate {mode.value}",
        )
        by_mode[mode] = [
            _mode_samples([judge(tokenizer, item.answer, mode, ids) for ids in group], length)
            for item, group, length in zip(items, drawn, lengths, strict=True)
        ]
    return [
        Row(
            kind=item.kind,
            level=item.level,
            closed=item.closed,
            context=item.context,
            key=item.key,
            prompt_tokens=len(prompts[i]),
            p_think=round(free[i].p_think, 6),
            mass=round(free[i].mass, 6),
            think=by_mode[Mode.THINK][i],
            no_think=by_mode[Mode.NO_THINK][i],
        )
        for i, item in enumerate(items)
    ]


def _variants(item: mix.Item, rng: random.Random, split: str) -> dict[str, tuple[Message, ...]]:
    question = item.messages[-1]
    turns: list[Message] = []
    for _ in range(2):
        earlier = mix.sample_item(rng, split)
        turns += [earlier.messages[-1], Message("assistant", earlier.answer)]
    system = Message("system", "You are a helpful assistant.")
    return {"bare": (question,), "system": (system, question), "two turns": (*turns, question)}


def context_rows(lm: PreTrainedModel, tokenizer: ChatTokenizer, config: EvalConfig, questions: int) -> list[ContextRow]:
    """Ask the same questions bare, with a system message and after two turns, in the mode the model chooses."""
    torch.manual_seed(config.seed)
    rng = random.Random(f"contexts-{config.seed}")
    items = mix.fixed_items(questions, config.seed + 1, config.split)
    asked = [
        (variant, item, messages) for item in items for variant, messages in _variants(item, rng, config.split).items()
    ]
    prompts = [encode_chat(tokenizer, messages, None) for _, _, messages in asked]
    free = choices(lm, tokenizer, prompts)
    scores: list[tuple[float, ...]] = [()] * len(asked)
    for mode in Mode:
        mine = [i for i, choice in enumerate(free) if (choice.p_think >= 0.5) == (mode is Mode.THINK)]
        if not mine:
            continue
        drawn = generate_forced(
            lm,
            tokenizer,
            [prompts[i] for i in mine],
            mode,
            config.samples // 2,
            config.temperature,
            config.max_new_tokens,
            progress=f"contexts {mode.value}",
        )
        for i, group in zip(mine, drawn, strict=True):
            scores[i] = tuple(judge(tokenizer, asked[i][1].answer, mode, ids).score for ids in group)
    return [
        ContextRow(variant, item.kind, item.level, item.key, round(free[i].p_think, 6), scores[i])
        for i, (variant, item, _) in enumerate(asked)
    ]


def load_for_evaluation(checkpoint: Path) -> tuple[PreTrainedModel, ChatTokenizer]:
    """Load a checkpoint as it is served (bf16) with its tokenizer."""
    return serving_copy(load_model(checkpoint)), ChatTokenizer.load(checkpoint)


def evaluate(checkpoint: Path, config: EvalConfig) -> list[Row]:
    """Return the rows of `checkpoint` on the first `config.prompts` prompts of `config.split`."""
    lm, tokenizer = load_for_evaluation(checkpoint)
    return sample_rows(lm, tokenizer, mix.fixed_items(config.prompts, config.seed, config.split), config)
