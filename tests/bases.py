"""Tiny causal LMs with the kinds of tokenizer that real ones have, for tests of `init_base`."""

import json
import shutil

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from lhrm_train.format import TAGS

CORPUS = [
    "think step by step and then end of thinking",
    "answer directly until the end of answer",
    "start of message, end of message: user assistant system",
    "What is 12 + 7? Reverse ABC. You are a helpful assistant.",
] * 3
OLD_ENDING = "<|endoftext|>"
CHATML = ("<|im_start|>", "<|im_end|>")
FIRST_BYTE = 3  # id of <0x00> in the byte fallback vocabulary
SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 512,
}


def byte_level(special=(OLD_ENDING,), plain=(), prefix_space=False):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    return tokenizer


def sentencepiece(prefix=True):
    """A BPE with byte fallback and start of text, as Llama 2 has it: a space is added in front and dropped again."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=120, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{value:02X}>" for value in range(256)), *model["vocab"]]
    merges = [tuple(pair) for pair in model["merges"]]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: index for index, piece in enumerate(pieces)},
            merges=merges,
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    add, drop = ([normalizers.Prepend("\u2581")], [decoders.Strip(" ", 1, 0)]) if prefix else ([], [])
    tokenizer.normalizer = normalizers.Sequence([*add, normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), *drop]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


def llama_tied():
    torch.manual_seed(1)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=sentencepiece(), bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    config = LlamaConfig(
        vocab_size=len(fast), tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=None, **SHAPE
    )
    return LlamaForCausalLM(config), fast


def qwen3_untied():
    """Own turn markers, think tags that are not special, more rows than tokens, padding that is also an ending."""
    torch.manual_seed(2)
    tokenizer = byte_level(special=(OLD_ENDING, *CHATML), plain=("<tool_call>", *TAGS[:2]))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=CHATML[1], pad_token=OLD_ENDING)
    ending = tokenizer.token_to_id(CHATML[1])
    config = Qwen3Config(vocab_size=352, tie_word_embeddings=False, head_dim=16, eos_token_id=[ending, 0], **SHAPE)
    model = Qwen3ForCausalLM(config)
    model.generation_config.update(do_sample=True, temperature=0.6, top_k=20, top_p=0.95, eos_token_id=[ending, 0])
    return model, fast


def qwen2_tied():
    torch.manual_seed(3)
    fast = PreTrainedTokenizerFast(tokenizer_object=byte_level(), eos_token=OLD_ENDING, pad_token=OLD_ENDING)
    return Qwen2ForCausalLM(Qwen2Config(vocab_size=len(fast), tie_word_embeddings=True, **SHAPE)), fast


def gpt2():
    """Start and end of text are one token, contents get a space in front."""
    torch.manual_seed(4)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=byte_level(prefix_space=True), bos_token=OLD_ENDING, eos_token=OLD_ENDING
    )
    config = GPT2Config(
        vocab_size=len(fast), n_positions=512, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    return GPT2LMHeadModel(config), fast


BASES = {maker.__name__: maker for maker in (llama_tied, qwen3_untied, qwen2_tied, gpt2)}
UNTIED = {"qwen3_untied"}
PADDED = {"qwen3_untied", "qwen2_tied"}  # bases that have a padding token


def save_base(directory, model, fast):
    # Values that bf16 can hold, so that whatever stays must stay to the last bit.
    model.to(torch.bfloat16).to(torch.float32).save_pretrained(directory)
    fast.save_pretrained(directory)
    return directory


def edited(source, target, change):
    """A copy of a base whose tokenizer.json went through `change`."""
    shutil.copytree(source, target)
    path = target / "tokenizer.json"
    spec = json.loads(path.read_text())
    change(spec)
    path.write_text(json.dumps(spec))
    return target
