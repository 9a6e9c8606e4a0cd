"""A GGUF file as a base."""

import json

import gguf
import numpy as np
import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
)

from lhrm_train.checkpoint import load_model
from lhrm_train.format import ChatTokenizer
from lhrm_train.init import InitError, init_base
from tests.bases import (
    CORPUS,
    SHAPE,
    byte_level,
)


def write_gguf(path, model, tokenizer, kind=gguf.GGMLQuantizationType.F32, scaling=None, factors=False):
    """Write a Llama as llama.cpp's converter does: its names, and rotary halves interleaved."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(10_000.0)
    if scaling is not None:
        writer.add_rope_scaling_type(scaling)
    if factors:
        writer.add_tensor("rope_freqs.weight", np.ones(config.head_dim // 2, dtype=np.float32))
    writer.add_vocab_size(config.vocab_size)
    ids = tokenizer.get_vocab()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(sorted(ids, key=ids.__getitem__))
    writer.add_token_types([gguf.TokenType.CONTROL] + [gguf.TokenType.NORMAL] * (len(ids) - 1))
    writer.add_token_merges([" ".join(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]])
    writer.add_eos_token_id(0)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, value in model.state_dict().items():
        array = value.float().numpy()
        if "q_proj" in name or "k_proj" in name:
            halves = array.reshape(config.num_attention_heads, 2, -1, array.shape[1])
            array = halves.swapaxes(1, 2).reshape(array.shape)
        used = kind if array.ndim == 2 else gguf.GGMLQuantizationType.F32
        array = gguf.quants.quantize(np.ascontiguousarray(array), used)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), array, raw_dtype=used)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gguf_parts():
    torch.manual_seed(6)
    tokenizer = byte_level()
    shape = SHAPE | {"intermediate_size": 64, "head_dim": 16}
    config = LlamaConfig(vocab_size=tokenizer.get_vocab_size(), eos_token_id=0, tie_word_embeddings=False, **shape)
    return LlamaForCausalLM(config).to(torch.bfloat16).float(), tokenizer


@pytest.mark.parametrize(
    ("kind", "tolerance"), [(gguf.GGMLQuantizationType.F32, 1e-5), (gguf.GGMLQuantizationType.Q8_0, 0.02)]
)
def test_a_gguf_file_becomes_a_base(tmp_path, kind, tolerance):
    model, tokenizer = gguf_parts()
    size = tokenizer.get_vocab_size()
    write_gguf(tmp_path / "tiny.Q8.gguf", model, tokenizer, kind)
    out = init_base(str(tmp_path / "tiny.Q8.gguf"), tmp_path / "out")
    chat, made = ChatTokenizer.load(out), load_model(out)
    assert chat.manifest.base_model == "tiny.Q8"
    assert chat.encode_text(CORPUS[3]) == tokenizer.encode(CORPUS[3]).ids
    assert "quantization_config" not in json.loads((out / "config.json").read_text())
    ids = torch.tensor([tokenizer.encode(CORPUS[3]).ids])
    with torch.inference_mode():
        before, after = model(input_ids=ids).logits, made(input_ids=ids).logits[..., :size]
    torch.testing.assert_close(after, before, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("extra", "refused"),
    [
        ({"scaling": gguf.RopeScalingType.NONE}, False),
        ({"scaling": gguf.RopeScalingType.LINEAR}, True),
        ({"factors": True}, True),
    ],
)
def test_rotary_scaling_is_not_lost(tmp_path, extra, refused):
    path = tmp_path / "scaled.gguf"
    write_gguf(path, *gguf_parts(), **extra)
    if refused:
        with pytest.raises(InitError, match="source scaled: its scaled rotary frequencies cannot be read"):
            init_base(str(path), tmp_path / "out")
    assert refused or ChatTokenizer.load(init_base(str(path), tmp_path / "out"))
