"""Build everything a run needs but take no step: data counts, sizes, and estimates of memory and time."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from lhrm_train.checkpoint import is_checkpoint, load_model
from lhrm_train.compatibility import check_positions
from lhrm_train.config import HFTConfig, RunConfig
from lhrm_train.estimate import H100, Shape, describe, hft, hgpo
from lhrm_train.format import ChatTokenizer
from lhrm_train.init import InitError, base_from
from lhrm_train.nano import build_base
from lhrm_train.streams import check_problems, demonstration_data, problem_data

GROUPED = 6  # queries per key assumed where the model is not at hand


def _base(config: RunConfig, scratch: Path) -> Path | None:
    path = config.base.path
    if not path:
        build_base(scratch / "base", config.base, config.hft_seed)
        return scratch / "base"
    if is_checkpoint(Path(path)):
        return Path(path)
    try:
        return base_from(config.base, scratch / "base", config.hft_seed)
    except InitError:
        if not config.base.parameters:
            raise
        return None


def _shape(base: Path | None, config: RunConfig) -> Shape:
    if base is None:
        b = config.base
        return Shape(b.parameters, b.layers, b.hidden_size, b.vocab_size, b.hidden_size // GROUPED)
    model: Any = AutoConfig.from_pretrained(base).get_text_config()
    size = sum(p.numel() for p in load_model(base).parameters())
    head = getattr(model, "head_dim", None) or model.hidden_size // model.num_attention_heads
    heads = getattr(model, "num_key_value_heads", None) or model.num_attention_heads
    return Shape(float(size), model.num_hidden_layers, model.hidden_size, model.vocab_size, heads * head)


def _describe_data(base: Path, config: RunConfig, processes: int) -> tuple[list[str], HFTConfig]:
    """Return lines about the data, and HFT's settings with `epochs` turned into steps."""
    tokenizer = ChatTokenizer.load(base)
    lines, hft_config = [], config.hft
    if "hft" in config.stages:
        check_positions(base, config.hft.row_length)
        data = demonstration_data(tokenizer, config.data, config.hft, config.hft_seed, processes)
        hft_config = data.config
        batch = next(data.stream.batches(0))
        lines.append(f"HFT data: {data.cleaning or config.data.source}; {data.mixture or 'endless'}")
        lines.append(
            f"HFT: {data.config.steps} updates; a micro-batch is {tuple(batch.input_BT.shape)} ids, "
            f"{batch.trained_tokens} of them trained"
        )
    if "hgpo" in config.stages:
        problems = problem_data(tokenizer, config.prompts, config.hgpo, config.hgpo_seed)
        check_positions(base, config.hgpo.row_length)
        check_problems(problems, tokenizer, config.reward)
        drawn = problems.stream.draw(0, config.hgpo.prompts)
        lines.append(f"HGPO data: {problems.cleaning or config.prompts.source}; {problems.too_long} prompts too long")
        lines.append(f"HGPO: {config.hgpo.steps} steps of {len(drawn)} prompts x {config.hgpo.rollouts} rollouts")
    return lines, hft_config


def dry_run(config: RunConfig, hft_checkpoint: Path | None = None) -> str:
    """Return what the run would do. A base that cannot be loaded here is described by its settings alone.

    Raises what the run itself would raise on bad settings, data or base.
    """
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    with tempfile.TemporaryDirectory(prefix="lhrm-dry-run-") as scratch:
        base = hft_checkpoint or _base(config, Path(scratch))
        shape = _shape(base, config)
        lines = [f"base: {config.base.path or 'random'}, {shape.parameters / 1e6:.1f} million parameters"]
        hft_config = config.hft
        if base is None:
            lines.append(f"base not found here, so its tokenizer and the data were not tried: {config.base.path}")
            if config.hft.epochs:
                lines.append(f"the time of HFT is that of {config.hft.steps} steps: how many an epoch has is not known")
        else:
            data_lines, hft_config = _describe_data(base, config, processes)
            lines += data_lines
    lines.append(describe("HFT", hft(shape, hft_config, processes, H100), H100, processes))
    lines.append(describe("HGPO", hgpo(shape, config.hgpo, processes, H100), H100, processes))
    return "\n".join(lines)
