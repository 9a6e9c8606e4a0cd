"""Checkpoints that are complete or absent: Hugging Face directories and training states."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from lhrm_train.atomic import replace_directory
from lhrm_train.format import MANIFEST_NAME, Manifest

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
STATE_NAME = "state.pt"


def load_model(directory: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Load a causal LM, by default in fp32 (the master weights); compute runs under bf16 autocast."""
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype, attn_implementation="sdpa")
    return model


def _bf16_state(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    # Tensors that share memory keep sharing it: save_pretrained then writes a tied head only once.
    copies: dict[tuple[int, torch.Size], torch.Tensor] = {}
    state = {}
    for name, value in model.state_dict().items():
        key = (value.data_ptr(), value.shape)
        if key not in copies:
            copies[key] = value.to(torch.bfloat16) if value.is_floating_point() else value
        state[name] = copies[key]
    return state


def write_checkpoint(
    model: PreTrainedModel, manifest: Manifest, write_tokenizer: Callable[[Path], object], target: Path
) -> None:
    """Write a serving checkpoint to `target`, complete or not at all: bf16 weights, the files that
    `write_tokenizer` puts into the folder it is given, manifest last.
    """

    def write(fresh: Path) -> None:
        model.save_pretrained(fresh, state_dict=_bf16_state(model))
        model.config.dtype = torch.bfloat16
        model.config.save_pretrained(fresh)  # again: save_pretrained noted the dtype of the model, not of the file
        write_tokenizer(fresh)
        for path in fresh.iterdir():
            path.chmod(0o644)  # safetensors writes 0600, which another user could not serve
        manifest.save(fresh)

    replace_directory(target, write)


def save_checkpoint(model: PreTrainedModel, manifest: Manifest, source: Path, target: Path) -> None:
    """Write a serving checkpoint (bf16 weights, tokenizer of `source`, manifest last) to `target`."""

    def copy_tokenizer(fresh: Path) -> None:
        for name in TOKENIZER_FILES:
            shutil.copyfile(source / name, fresh / name)

    write_checkpoint(model, manifest, copy_tokenizer, target)


def stage_manifest(source: Path, recipe: dict[str, object]) -> Manifest:
    """Return the manifest of a checkpoint trained from `source`, whose own evaluation no longer holds."""
    return replace(Manifest.load(source), recipe=recipe, evaluation={}, savings_calibration=None)


def is_checkpoint(directory: Path) -> bool:
    """Tell whether a complete checkpoint is there; the manifest is written last."""
    return (directory / MANIFEST_NAME).is_file()


def save_state(directory: Path, state: dict[str, Any]) -> None:
    """Write a training state, torch's random state included, that replaces the previous one in one step."""
    directory.mkdir(parents=True, exist_ok=True)
    # The state of this process's own device: another machine may have another number of them.
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    rng = {"cpu": torch.get_rng_state(), "cuda": cuda}
    fresh = directory / f"{STATE_NAME}.tmp"
    try:
        torch.save({**state, "rng": rng}, fresh)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    fresh.replace(directory / STATE_NAME)


def load_state(directory: Path) -> dict[str, Any] | None:
    """Read the training state and restore torch's random state; None when there is none."""
    path = directory / STATE_NAME
    if not path.is_file():
        return None
    # Mapped, because every process reads it and only some need all of it.
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=False, mmap=True)
    torch.set_rng_state(state["rng"]["cpu"])
    if state["rng"]["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["rng"]["cuda"])
    return state
