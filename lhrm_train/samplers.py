"""Where answers come from: what evaluation asks of any model, and a checkpoint in this process that gives it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lhrm_train.config import ConfigError, EvalConfig
from lhrm_train.digest import weights_digest
from lhrm_train.format import ChatTokenizer, Mode, encode_chat
from lhrm_train.problems import Problem

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BOTH_MODES = (Mode.THINK, Mode.NO_THINK)


class SamplerError(RuntimeError):
    """A model that cannot be asked at all: every further request would fail as well."""


@dataclass(frozen=True)
class Decision:
    """The free choice on one prompt: P(think) over both tags, the tags' mass, and the prompt's length in tokens.

    None where it is unknown; `error` tells why a question that has an answer got none.
    """

    p_think: float | None
    mass: float | None
    prompt_tokens: int
    error: str = ""


@dataclass(frozen=True)
class Generated:
    """A completion as token ids, without the opening tag."""

    ids: tuple[int, ...]


@dataclass(frozen=True)
class Answered:
    """A completion as a server tells it. `well_formed`: not cut, and closed by the tag of its mode."""

    text: str
    completion_tokens: int
    truncated: bool
    well_formed: bool


@dataclass(frozen=True)
class Failed:
    """A completion that did not come."""

    reason: str


Completion = Generated | Answered | Failed


class Sampler(Protocol):
    """A model that answers problems in forced modes."""

    @property
    def modes(self) -> tuple[Mode, ...]:
        """The modes it can be forced into; think alone for a model that always thinks."""

    @property
    def tokenizer(self) -> ChatTokenizer | None:
        """What its ids mean; None when it gives texts."""

    def describe(self) -> dict[str, str]:
        """Return what tells this model from another one; equal only where answers may be mixed."""

    def decide(self, problems: Sequence[Problem]) -> list[Decision]:
        """Return the free choice on every problem."""

    def complete(self, problems: Sequence[Problem], mode: Mode, samples: int, seed: int) -> list[list[Completion]]:
        """Return `samples` completions in `mode` for every problem. Raises SamplerError."""


def derived_seed(*parts: object) -> int:
    """Return 31 bits that depend on every part, the same in every process."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") >> 1


class LocalSampler:
    """A checkpoint in this process, sampled with transformers. `source` is where its weights lie."""

    modes = BOTH_MODES

    def __init__(
        self,
        lm: PreTrainedModel,
        tokenizer: ChatTokenizer,
        config: EvalConfig,
        source: Path | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self._lm = lm
        self._config = config
        self._source = source

    @classmethod
    def load(cls, checkpoint: Path, config: EvalConfig) -> LocalSampler:
        """Load a checkpoint as it is served. Raises FormatError when it is not one, ConfigError without torch."""
        lm, tokenizer = load_for_evaluation(checkpoint)
        return cls(lm, tokenizer, config, checkpoint)

    def describe(self) -> dict[str, str]:
        """Return the checkpoint's name and a digest of its weights."""
        return {"model": self.tokenizer.manifest.name, "weights": self._weights}

    @cached_property
    def _weights(self) -> str:
        return weights_digest(self._source) if self._source is not None else ""

    def decide(self, problems: Sequence[Problem]) -> list[Decision]:
        """Read P(think) from the raw probabilities of the two opening tags."""
        from lhrm_train.rollout import choices

        prompts = self._prompts(problems)
        fitting = [prompt for prompt in prompts if self._fits(prompt)]
        free = iter(choices(self._lm, self.tokenizer, fitting, min(256, self._config.batch)))
        out = []
        for prompt in prompts:
            if self._fits(prompt):
                choice = next(free)
                out.append(Decision(round(choice.p_think, 6), round(choice.mass, 6), len(prompt)))
            else:
                out.append(Decision(None, None, len(prompt), self._no_room(prompt)))
        return out

    def complete(self, problems: Sequence[Problem], mode: Mode, samples: int, seed: int) -> list[list[Completion]]:
        """Sample with the tag of `mode` forced; a prompt without room for the longest answer fails."""
        import torch

        from lhrm_train.rollout import generate_forced

        torch.manual_seed(seed)
        config, prompts = self._config, self._prompts(problems)
        fitting = [prompt for prompt in prompts if self._fits(prompt)]
        drawn = iter(
            generate_forced(
                self._lm,
                self.tokenizer,
                fitting,
                mode,
                samples,
                config.temperature,
                config.max_new_tokens,
                config.batch,
            )
        )
        out: list[list[Completion]] = []
        for prompt in prompts:
            if self._fits(prompt):
                out.append([Generated(tuple(ids)) for ids in next(drawn)])
            else:
                out.append([Failed(self._no_room(prompt))] * samples)
        return out

    def _fits(self, prompt: Sequence[int]) -> bool:
        positions = int(getattr(self._lm.config, "max_position_embeddings", 1 << 30))
        return len(prompt) + 1 + self._config.max_new_tokens <= positions

    def _no_room(self, prompt: Sequence[int]) -> str:
        return f"a prompt of {len(prompt)} tokens leaves no room for max_new_tokens = {self._config.max_new_tokens}"

    def _prompts(self, problems: Sequence[Problem]) -> list[list[int]]:
        return [encode_chat(self.tokenizer, problem.messages, None) for problem in problems]


def load_for_evaluation(checkpoint: Path) -> tuple[PreTrainedModel, ChatTokenizer]:
    """Load a checkpoint as it is served (bf16, on the GPU where there is one) with its tokenizer."""
    try:
        import torch

        from lhrm_train.checkpoint import load_model
        from lhrm_train.rollout import for_sampling
    except ImportError as exc:
        raise ConfigError(f"evaluating a checkpoint needs the package {exc.name}: pip install 'lhrm[train]'") from exc
    tokenizer = ChatTokenizer.load(checkpoint)
    # Loading in bf16, unlike casting to it, leaves the rotary frequencies in fp32, as a server has them.
    lm = load_model(checkpoint, torch.bfloat16)
    lm.to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[arg-type]
    return for_sampling(lm), tokenizer
