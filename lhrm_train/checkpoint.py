"""Checkpoints that are complete or absent: Hugging Face directories and training states."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from lhrm_train.format import MANIFEST_NAME, Manifest

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
STATE_NAME = "state.pt"


def load_model(directory: Path) -> PreTrainedModel:
    """Load a causal LM in fp32 (the master weights); compute runs under bf16 autocast."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="sdpa"
    )
    return model


def _replace_directory(target: Path, write: Callable[[Path], None]) -> None:
    # A killed process leaves the temporary folder behind, never half of `target`.
    fresh = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    write(fresh)
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def save_checkpoint(model: PreTrainedModel, manifest: Manifest, source: Path, target: Path) -> None:
    """Write a serving checkpoint (bf16 weights, tokenizer of `source`, manifest last) to `target`."""

    def write(fresh: Path) -> None:
        state = {name: value.to(torch.bfloat16) for name, value in model.state_dict().items()}
        model.config.dtype = torch.bfloat16
        model.save_pretrained(fresh, state_dict=state)
        for name in TOKENIZER_FILES:
            shutil.copyfile(source / name, fresh / name)
        for path in fresh.iterdir():
            path.chmod(0o644)  # safetensors writes 0600, which another user could not serve
        manifest.save(fresh)

    _replace_directory(target, write)


def is_checkpoint(directory: Path) -> bool:
    """Tell whether a complete checkpoint is there; the manifest is written last."""
    return (directory / MANIFEST_NAME).is_file()


def save_state(directory: Path, state: dict[str, Any]) -> None:
    """Write a training state that replaces the previous one in one step."""
    directory.mkdir(parents=True, exist_ok=True)
    fresh = directory / f"{STATE_NAME}.tmp"
    torch.save({**state, "torch_rng": torch.get_rng_state()}, fresh)
    fresh.replace(directory / STATE_NAME)


def load_state(directory: Path) -> dict[str, Any] | None:
    """Read the training state and restore torch's random state; None when there is none."""
    path = directory / STATE_NAME
    if not path.is_file():
        return None
    state: dict[str, Any] = torch.load(path, weights_only=False)
    torch.set_rng_state(state["torch_rng"])
    return state
