"""Build the nano base: a byte-level tokenizer trained on the task suite and a small random Llama."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from lhrm_train.config import BaseConfig
from lhrm_train.format import TAGS, TURN_END, TURN_START, Manifest, TagIds, chat_template
from lhrm_train.suite import facts, mix, smalltalk

PAD = "<|pad|>"
SPECIAL = (PAD, TURN_START, TURN_END, *TAGS)
CORPUS_ITEMS = 8000


def _corpus() -> Iterator[str]:
    for item in itertools.islice(mix.items(seed=0, split="train"), CORPUS_ITEMS):
        yield from (item.question, item.trace, item.answer)
    # Closed sets and system messages are few, so they are repeated until their words earn a merge.
    closed = facts.facts() + smalltalk.smalltalk()
    for _ in range(20):
        for draw in closed:
            yield from (draw.question, draw.answer)
        yield from mix.SYSTEM_MESSAGES
        yield from ("system", "user", "assistant")


def build_tokenizer(vocab_size: int) -> Tokenizer:
    """Train a byte-level BPE with all 256 bytes; digits and lone capitals stay single tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split(Regex(r"[A-Z](?![a-z])"), "isolated"),
            pre_tokenizers.Split(Regex(r"[^\sA-Za-z0-9]"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=15,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return tokenizer


def build_base(directory: Path, config: BaseConfig, seed: int) -> None:
    """Write a random base checkpoint in the mode format: model, tokenizer, template and lhrm.json."""
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = build_tokenizer(config.vocab_size)
    ids = tokenizer.get_vocab(with_added_tokens=True)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=TURN_END,
        pad_token=PAD,
        additional_special_tokens=[TURN_START, *TAGS],
        model_max_length=config.max_positions,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = chat_template()
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=-(-len(fast) // 64) * 64,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.heads,
            head_dim=config.hidden_size // config.heads,
            intermediate_size=config.intermediate_size,
            max_position_embeddings=config.max_positions,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=ids[TURN_END],
            pad_token_id=ids[PAD],
            attention_dropout=0.0,
        )
    )
    model.generation_config = GenerationConfig(do_sample=False, eos_token_id=ids[TURN_END], pad_token_id=ids[PAD])
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory)
    fast.save_pretrained(directory)
    tags = TagIds(*(ids[tag] for tag in TAGS))
    Manifest(name=config.name, tags=tags, base_model=None, recipe={"base": "random", "seed": seed}).save(directory)
    size = sum(parameter.numel() for parameter in model.parameters())
    (directory / "base.json").write_text(json.dumps({"parameters": size, "vocab": len(fast)}) + "\n", encoding="utf-8")
