"""Turn any pretrained causal LM into a base in the mode format, ready for Hybrid Fine-Tuning.

The base keeps its weights, its vocabulary and its own turn markers where it has some of the ChatML shape. What is
missing of turn markers, tags and padding is added as special tokens, each one id.

New rows of the embedding (and of an untied head) start where the base already knows something close. A tag starts at
the mean of the words that say what it does, because a random row is far from every direction the layers have learned
to read. A new start of turn starts at the base's start of text, unless that itself goes in front of every prompt, as
in bases that put one in front of their texts or chats. A new end of turn starts at the base's end of text, so that the
base can already stop. Each such row gets the typical length of its words, since a mean of vectors is too short, and a
little seeded noise, so that no two are equal. Rows that nothing uses are the mean of all rows: their logits stay
average.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils.quantization_config import GgufConfig

from lhrm_train.checkpoint import is_checkpoint, write_checkpoint
from lhrm_train.compatibility import TOLERANCE, packed_difference
from lhrm_train.config import BaseConfig
from lhrm_train.format import TAGS, Mode, encode_chat
from lhrm_train.vocabulary import HARMLESS, InitError, Vocabulary, extend_tokenizer

__all__ = ["InitError", "Stretch", "base_from", "init_base"]

TAG_MEANINGS = (" think step by step", " end of thinking", " answer directly", " end of answer")
TURN_MEANINGS = (" start of message", " end of message")
ROW_MULTIPLE = 64  # matrix sizes that tensor cores like
NOISE = 0.02  # of a row's typical entry; bf16 resolves 0.004


@dataclass(frozen=True)
class _Source:
    """Where the base is: a directory or hub name, the GGUF file in it if there is one, the name for the manifest."""

    location: str
    name: str
    gguf_file: str | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        return {"trust_remote_code": False} | ({"gguf_file": self.gguf_file} if self.gguf_file else {})


@contextmanager
def _failing_as(what: str) -> Iterator[None]:
    # Readers of foreign files raise whatever they meet: a missing package, a lost connection, a struct that ends early.
    try:
        yield
    except InitError:
        raise
    except ImportError as exc:
        raise InitError(f"{what}: {exc}; pip install 'lhrm[train]'") from exc
    except Exception as exc:
        lines = str(exc).strip().splitlines()
        raise InitError(f"{what}: {type(exc).__name__}: {lines[0] if lines else 'no message'}") from exc


@dataclass(frozen=True)
class Stretch:
    """Longer contexts than the base was trained with: its number of positions and its rotary base; 0 = as they are."""

    positions: int = 0
    rope_theta: float = 0.0


AS_IT_IS = Stretch()


def base_from(config: BaseConfig, out: Path, seed: int) -> Path:
    """Write the base that `config.path` names to `out`, as init_base does."""
    stretch = Stretch(config.stretch_positions, config.rope_theta)
    return init_base(config.path, out, config.name, seed, stretch=stretch)


def init_base(
    source: str,
    out: Path,
    name: str | None = None,
    seed: int = 0,
    *,
    stretch: Stretch = AS_IT_IS,
    overwrite: bool = False,
) -> Path:
    """Write the base checkpoint of `source` to `out`, complete or not at all, and return `out`.

    `source` is a directory, a ``.gguf`` file (dequantised) or a hub name. Weights are loaded in fp32 and stored in
    bf16. `name` defaults to the last part of `out`; `seed` draws the noise of the new rows; a base with another
    rotary base must learn it in training. Raises InitError when
    the base cannot be loaded, its tokenizer cannot follow the format, or `out` holds something: a finished
    checkpoint is replaced with `overwrite`, anything else never.
    """
    where = _resolve(source)
    _check_target(out, where, overwrite)
    _check_config(where)
    vocabulary = extend_tokenizer(_load_tokenizer(where), name or out.resolve().name, where.name, seed)
    model = _load_model(where, stretch)
    if stretch.positions:
        vocabulary.fast.model_max_length = stretch.positions
    _grow(model, vocabulary, seed)
    _set_endings(model, vocabulary)
    _check_forward(model, vocabulary)
    write_checkpoint(model, vocabulary.chat.manifest, vocabulary.fast.save_pretrained, out)
    return out


def _resolve(source: str) -> _Source:
    path = Path(source).expanduser()
    if path.suffix == ".gguf":
        if not path.is_file():
            raise InitError(f"source {source}: no such GGUF file")
        return _Source(str(path.parent), path.stem, path.name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise InitError(f"source {source}: the directory has no config.json")
        return _Source(str(path), path.resolve().name)
    if path.exists() or source.startswith(("/", ".", "~")) or source.count("/") > 1:
        raise InitError(f"source {source}: neither a model directory, nor a .gguf file, nor a hub name")
    return _Source(source, source)


def _check_target(out: Path, source: _Source, overwrite: bool) -> None:
    origin = Path(source.location)
    if origin.exists() and origin.resolve().is_relative_to(out.resolve()):
        raise InitError(f"out {out}: holds the source")
    if out.exists() and not out.is_dir():
        raise InitError(f"out {out}: is a file")
    if not out.exists() or not any(out.iterdir()):
        return
    if not is_checkpoint(out):
        raise InitError(f"out {out}: not empty and not a checkpoint, so it is never overwritten")
    if not overwrite:
        raise InitError(f"out {out}: holds a checkpoint; --overwrite replaces it")


def _check_config(source: _Source) -> None:
    with _failing_as(f"source {source.name}: cannot read its configuration"):
        config = AutoConfig.from_pretrained(source.location, **source.arguments)
    if getattr(config, "quantization_config", None) is not None:
        raise InitError(f"source {source.name}: quantization_config is set; use the unquantised model")
    if source.gguf_file:
        _check_gguf(source, Path(source.location) / source.gguf_file)


def _check_gguf(source: _Source, path: Path) -> None:
    # transformers leaves scaled rotary frequencies out without a word, except those of gpt-oss.
    with _failing_as(f"source {source.name}: cannot read its configuration"):
        from gguf import GGUFReader

        reader = GGUFReader(path)
        architecture = reader.fields["general.architecture"].contents()
        field = reader.fields.get(f"{architecture}.rope.scaling.type")
        scaled = field is not None and field.contents() != "none"
        scaled = scaled or any(tensor.name.startswith(("rope_freqs", "rope_factors")) for tensor in reader.tensors)
    if scaled and architecture != "gpt-oss":
        raise InitError(f"source {source.name}: its scaled rotary frequencies cannot be read; use the original model")


def _load_tokenizer(source: _Source) -> PreTrainedTokenizerFast:
    # AutoTokenizer may rebuild a tokenizer by its class; the plain class takes tokenizer.json as it is.
    loader: Any = AutoTokenizer if source.gguf_file else PreTrainedTokenizerFast
    with _failing_as(f"source {source.name}: no fast tokenizer (tokenizer.json)"):
        fast = loader.from_pretrained(source.location, **source.arguments)
    if not isinstance(fast, PreTrainedTokenizerFast):
        raise InitError(f"source {source.name}: {type(fast).__name__} is not a fast tokenizer (tokenizer.json)")
    return fast


def _stretched(source: _Source, stretch: Stretch) -> dict[str, Any]:
    """Return the argument that loads the model with other positions; none where they stay."""
    if stretch == AS_IT_IS:
        return {}
    if source.gguf_file:
        raise InitError(f"source {source.name}: a GGUF file cannot be stretched; use the original model")
    whole: Any = AutoConfig.from_pretrained(source.location, **source.arguments)
    config = whole.get_text_config()
    rotary = dict(getattr(config, "rope_parameters", None) or {})
    if "rope_theta" not in rotary or rotary.get("rope_type", "default") != "default":
        raise InitError(f"source {source.name}: only plain rotary positions can be stretched, not {rotary or 'others'}")
    if stretch.positions:
        config.max_position_embeddings = stretch.positions
    if stretch.rope_theta:
        config.rope_parameters = {**rotary, "rope_theta": stretch.rope_theta}
    return {"config": whole}


def _load_model(source: _Source, stretch: Stretch) -> PreTrainedModel:
    quantisation = GgufConfig(dequantize=True) if source.gguf_file else None
    with _failing_as(f"source {source.name}: cannot load the model"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source.location,
            dtype=torch.float32,
            quantization_config=quantisation,
            output_loading_info=True,
            **_stretched(source, stretch),
            **source.arguments,
        )
    model: PreTrainedModel = loaded[0]
    if getattr(model, "_hf_peft_config_loaded", False):
        raise InitError(f"source {source.name}: is an adapter; merge it into its model first")
    absent = sorted(loaded[1]["missing_keys"])
    if absent:
        raise InitError(f"source {source.name}: {len(absent)} weights are missing, the first is {absent[0]}")
    return model


def _meanings(vocabulary: Vocabulary) -> dict[int, list[int]]:
    """Return, per id of a turn marker or tag, the old ids whose mean a new row starts from."""
    chat, manifest = vocabulary.chat, vocabulary.chat.manifest
    markers = (manifest.turn_start, manifest.turn_end, *TAGS)
    sources = {
        vocabulary.ids[marker]: chat.encode_text(meaning)
        for marker, meaning in zip(markers, (*TURN_MEANINGS, *TAG_MEANINGS), strict=True)
    }
    bos, eos = vocabulary.old_id(vocabulary.bos), vocabulary.old_id(vocabulary.eos)
    if eos is not None and eos != chat.turn_end_id:
        sources[chat.turn_end_id] = [eos]
    if bos is not None and not manifest.text_start and bos not in (eos, vocabulary.ids[manifest.turn_start]):
        sources[vocabulary.ids[manifest.turn_start]] = [bos]
    return sources


@torch.no_grad()
def _fill(matrix_VD: Tensor, old_rows: int, vocabulary: Vocabulary, seed: int) -> None:
    """Write the new rows of one matrix in place; the first `old_rows` rows stay where the base had a token."""
    old_ids = set(vocabulary.old_ids.values())
    sources = _meanings(vocabulary)
    # A base may reserve ids and never train them: such rows are zero, or copies of each other.
    kept = [i for i in sources if i in old_ids and i < old_rows and matrix_VD[i].any()]
    kept = [i for i in kept if not any(matrix_VD[i].equal(matrix_VD[j]) for j in kept if j != i)]
    mean_D = matrix_VD[:old_rows].mean(0)
    matrix_VD[old_rows:] = mean_D
    for index in set(vocabulary.ids.values()) - old_ids:
        matrix_VD[index] = mean_D
    noise = torch.Generator().manual_seed(seed)
    for index, words in sources.items():
        if index in kept:
            continue
        words_WD = matrix_VD[words]
        row_D = words_WD.mean(0)
        row_D *= words_WD.norm(dim=1).mean() / row_D.norm().clamp_min(1e-12)
        typical = row_D.norm() / row_D.numel() ** 0.5
        matrix_VD[index] = row_D + NOISE * typical * torch.randn(row_D.shape, generator=noise)


def _grow(model: PreTrainedModel, vocabulary: Vocabulary, seed: int) -> None:
    embedding: Any = model.get_input_embeddings()
    if embedding is None or model.get_output_embeddings() is None:
        raise InitError(f"model: {type(model).__name__} has no embedding or no output head to extend")
    old_rows = embedding.weight.shape[0]
    if old_rows < vocabulary.size:
        model.resize_token_embeddings(-(-vocabulary.size // ROW_MULTIPLE) * ROW_MULTIPLE, mean_resizing=False)
    embedding = model.get_input_embeddings()
    head: Any = model.get_output_embeddings()
    _fill(embedding.weight.data, old_rows, vocabulary, seed)
    if head.weight.data_ptr() != embedding.weight.data_ptr():
        _fill(head.weight.data, old_rows, vocabulary, seed + 1)
    if getattr(head, "bias", None) is not None:
        head.bias.data[old_rows:] = head.bias.data[:old_rows].mean()


def _set_endings(model: PreTrainedModel, vocabulary: Vocabulary) -> None:
    """Set what ends an answer: the end of turn and what ended a text of the base. Greedy; nothing else is kept."""
    config: Any = model.config.get_text_config()
    found: list[int | None] = [vocabulary.chat.turn_end_id]
    for own in (getattr(model.generation_config, "eos_token_id", None), config.eos_token_id):
        found += own if isinstance(own, list) else [own]
    found.append(vocabulary.old_id(vocabulary.eos))
    eos = list(dict.fromkeys(index for index in found if index is not None))
    config.eos_token_id = eos if len(eos) > 1 else eos[0]
    config.pad_token_id = vocabulary.fast.pad_token_id
    model.generation_config = GenerationConfig(
        do_sample=False,
        bos_token_id=vocabulary.fast.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
    )


def _check_forward(model: PreTrainedModel, vocabulary: Vocabulary) -> None:
    """Raise InitError unless the model reads the tags and gives every id a finite logit."""
    what = f"model: {type(model).__name__}"
    for mode in Mode:
        ids_BT = torch.tensor([encode_chat(vocabulary.chat, HARMLESS, mode)])
        with _failing_as(f"{what} cannot read the new tokens"), torch.inference_mode():
            logits_BTV = model(input_ids=ids_BT).logits
        if logits_BTV.shape[-1] < vocabulary.size or not bool(logits_BTV.isfinite().all()):
            raise InitError(f"{what} gives logits of shape {tuple(logits_BTV.shape)}, or some are not finite")
    with _failing_as(f"{what} cannot be trained on packed rows"):
        gap = packed_difference(model, encode_chat(vocabulary.chat, HARMLESS, Mode.THINK))
    if not gap <= TOLERANCE:
        raise InitError(
            f"{what} cannot be trained here: its logits on packed rows are {gap:.2g} off; it scales or caps logits, or "
            "has layers that do not follow an attention mask"
        )
