"""The model in training: full weights or low-rank adapters, and the copy of it that samples."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from lhrm_train.checkpoint import load_model
from lhrm_train.compatibility import check_positions
from lhrm_train.config import ConfigError, LoraConfig
from lhrm_train.format import ChatTokenizer
from lhrm_train.optim import Optimizers
from lhrm_train.rollout import for_sampling
from lhrm_train.scorer import TokenScorer, choose_attention
from lhrm_train.sharding import (
    gather_model,
    gather_optimizer,
    is_sharded,
    spread_model,
    spread_optimizer,
    whole,
)


class Policy:
    """A causal LM that trains. `lm` computes; with adapters its frozen weights are bf16, else they are fp32."""

    def __init__(
        self, directory: Path, lora: LoraConfig, device: torch.device, checkpointing: bool, rows: int, row_length: int
    ) -> None:
        check_positions(directory, row_length)
        self._directory = directory
        self._device = device
        self._lora = bool(lora.rank)
        self.lm = load_model(directory, torch.bfloat16 if self._lora else torch.float32)
        self._adapters: Any = None
        if self._lora:
            # Tags and turn markers may be new words: their rows learn even where nothing else of the matrix does.
            chat = ChatTokenizer.load(directory)
            marks = chat.encode_template(chat.manifest.turn_start + chat.manifest.turn_end)
            self._adapters = _add_adapters(self.lm, lora, sorted({*astuple(chat.tags), *marks}))
        self.lm.to(device)  # type: ignore[arg-type]
        choose_attention(self.lm, device, rows, row_length)
        if checkpointing:
            self.lm.gradient_checkpointing_enable({"use_reentrant": False})
        self.scorer = TokenScorer(self.lm)
        self._serving: PreTrainedModel | None = None

    @property
    def has_adapters(self) -> bool:
        """Whether only low-rank adapters train."""
        return self._lora

    def trained_state(self) -> dict[str, Tensor]:
        """Return what training changes, by parameter name."""
        return {name: p.detach() for name, p in self.lm.named_parameters() if p.requires_grad}

    def training_state(self, optimizers: Optimizers) -> dict[str, Any]:
        """Return weights and optimiser states; split ones on the first process alone. All processes must call."""
        if is_sharded(self.scorer):
            parts = [gather_optimizer(self.scorer, part) for part in optimizers.parts]
            return {"model": gather_model(self.scorer), "optimizers": parts}
        return {"model": self.trained_state(), "optimizers": optimizers.state_dict()}

    def load_training_state(self, state: dict[str, Any], optimizers: Optimizers) -> None:
        """Restore what training_state returned. Raises ValueError when the names differ."""
        if is_sharded(self.scorer):
            spread_model(self.scorer, state["model"])
            for part, saved in zip(optimizers.parts, state["optimizers"], strict=True):
                spread_optimizer(self.scorer, part, saved)
            return
        mine = self.trained_state()
        if mine.keys() != state["model"].keys():
            other = sorted(mine.keys() ^ state["model"].keys())
            raise ValueError(f"the saved state has other parameters: {other[:3]} ...")
        for name, value in state["model"].items():
            mine[name].copy_(value)
        optimizers.load_state_dict(state["optimizers"])

    def merged(self) -> PreTrainedModel:
        """Return the model as it is served: adapters folded in, split weights put together. All processes must call."""
        if is_sharded(self.scorer):
            state = gather_model(self.lm)
            if not state:  # only the first process has it, and only that one saves
                return self.lm
            model = load_model(self._directory)
            model.load_state_dict(state)
            return model
        if self._adapters is None:
            return self.lm
        merged: PreTrainedModel = copy.deepcopy(self._adapters).merge_and_unload()
        return merged

    @torch.no_grad()
    def sampler(self) -> PreTrainedModel:
        """Return the present policy as a model to sample from: frozen, in evaluation mode, bf16 as it is served.

        A copy: adapters sampled in place would cost two more products per matrix and token. Valid until the next call.
        """
        if self._adapters is not None:
            self._serving = None  # before its successor is made
            self._serving = for_sampling(self.merged())
            return self._serving
        if self._serving is None:
            loaded: Any = load_model(self._directory, torch.bfloat16)
            self._serving = for_sampling(loaded.to(self._device))
        for target, source in zip(self._serving.parameters(), self.lm.parameters(), strict=True):
            target.copy_(whole(source))
        return self._serving

    @contextmanager
    def base(self) -> Iterator[None]:
        """Switch the adapters off within the block: the model as it was before training."""
        with self._adapters.disable_adapter():
            yield


def _add_adapters(lm: PreTrainedModel, lora: LoraConfig, words: list[int]) -> Any:
    try:
        from peft import LoraConfig as PeftConfig
        from peft import get_peft_model
    except ImportError as exc:
        raise ConfigError("lora.rank > 0 needs the package peft: pip install 'lhrm[train]'") from exc
    config = PeftConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
        trainable_token_indices=dict.fromkeys(_word_matrices(lm), words),
        task_type="CAUSAL_LM",
    )
    try:
        adapted = get_peft_model(lm, config)
    except ValueError as exc:
        raise ConfigError(f"lora.targets = {list(lora.targets)}: {exc}") from exc
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # what trains is fp32, as without adapters
    return adapted


def _word_matrices(lm: PreTrainedModel) -> list[str]:
    """Return the names of the matrices with one row per token; peft follows a tied head by itself."""
    head: Any = lm.get_output_embeddings()
    wanted = [lm.get_input_embeddings()]
    if getattr(head, "bias", None) is None:  # peft would leave the bias out
        wanted.append(head)
    return [name for name, module in lm.named_modules() if any(module is one for one in wanted)]
