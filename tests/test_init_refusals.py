"""What `init_base` refuses, and that it leaves nothing behind."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    Qwen2ForCausalLM,
)

from lhrm_train.checkpoint import load_model
from lhrm_train.format import TAGS, ChatTokenizer, Manifest
from lhrm_train.init import InitError, init_base
from tests.bases import (
    edited,
    qwen2_tied,
    save_base,
)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("plain") / "base", *qwen2_tied())


def test_nothing_but_a_checkpoint_is_ever_overwritten(source, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    init_base(str(source), out)  # an empty directory is free
    with pytest.raises(InitError, match="--overwrite replaces it"):
        init_base(str(source), out)
    init_base(str(source), out, name="second", overwrite=True)
    assert Manifest.load(out).name == "second"
    (out / "lhrm.json").unlink()
    with pytest.raises(InitError, match="never overwritten"):
        init_base(str(source), out, overwrite=True)
    with pytest.raises(InitError, match="is a file"):
        init_base(str(source), out / "config.json", overwrite=True)
    copy = init_base(str(source), tmp_path / "copy")
    with pytest.raises(InitError, match="holds the source"):
        init_base(str(copy), copy, overwrite=True)
    assert ChatTokenizer.load(copy).vocab_size > 0


def drop_alphabet(spec):
    spec["pre_tokenizer"] = {"type": "Whitespace"}


def lower_case(spec):
    spec["normalizer"] = {"type": "Lowercase"}


def no_decoder(spec):
    spec["decoder"] = None


def glue_lines(spec):
    # Without a split before the letters, "user", the line end and the text can merge.
    spec["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    spec["model"]["vocab"]["\u010aW"] = max(spec["model"]["vocab"].values()) + 1
    spec["model"]["merges"].insert(0, ["\u010a", "W"])


def whole_words(spec):
    # A piece that stands in the vocabulary is taken whole, a typed tag too.
    split = {"type": "Split", "pattern": {"String": " "}, "behavior": "Isolated", "invert": False}
    spelled = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    spec["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, spelled]}
    spec["model"]["ignore_merges"] = True
    spec["model"]["vocab"][TAGS[3]] = max(spec["model"]["vocab"].values()) + 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop_alphabet, "when encoded and decoded"),
        (lower_case, "'Hello' becomes 'hello'"),
        (no_decoder, "when encoded and decoded"),
        (whole_words, "typing 'a </no_think> b' gives a special token"),
        (glue_lines, "chat template gives other ids"),
    ],
)
def test_a_tokenizer_that_cannot_follow_the_format_is_refused(source, tmp_path, change, message):
    base = edited(source, tmp_path / "base", change)
    with pytest.raises(InitError, match=message):
        init_base(str(base), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


def test_a_decoder_that_looks_at_position_is_refused(source, tmp_path):
    def change(spec):
        inner = spec["decoder"]
        # Drops an exclamation mark, but only behind a tag.
        tail = {"type": "Replace", "pattern": {"String": ">!"}, "content": ">"}
        spec["decoder"] = {"type": "Sequence", "decoders": [inner, {"type": "Fuse"}, tail]}

    base = edited(source, tmp_path / "base", change)
    with pytest.raises(InitError, match="token '!' does not stand for fixed bytes"):
        init_base(str(base), tmp_path / "out")


def test_sources_that_are_no_model_are_refused(source, tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.gguf").write_bytes(b"GGUF nothing else")
    (tmp_path / "notes.txt").write_text("x")
    for name, message in {
        str(tmp_path / "empty"): "no config.json",
        str(tmp_path / "none.gguf"): "no such GGUF file",
        str(tmp_path / "broken.gguf"): "source broken: cannot read its configuration",
        str(tmp_path / "notes.txt"): "neither a model directory",
        str(tmp_path / "none"): "neither a model directory",
    }.items():
        with pytest.raises(InitError, match=message):
            init_base(name, tmp_path / "out")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InitError, match="source nobody/nothing: cannot read its configuration: OSError") as caught:
        init_base("nobody/nothing", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_bases_that_are_not_whole_are_refused(source, tmp_path):
    def copy(name):
        return Path(shutil.copytree(source, tmp_path / name))

    no_tokenizer = copy("no_tokenizer")
    for path in no_tokenizer.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(InitError, match="source no_tokenizer: no fast tokenizer"):
        init_base(str(no_tokenizer), tmp_path / "out")
    quantised, deeper = copy("quantised"), copy("deeper")
    for directory, change in (
        (quantised, {"quantization_config": {"quant_method": "gptq", "bits": 4}}),
        (deeper, {"num_hidden_layers": 3, "layer_types": None}),
    ):
        config = json.loads((directory / "config.json").read_text())
        (directory / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(InitError, match="quantization_config is set"):
        init_base(str(quantised), tmp_path / "out")
    with pytest.raises(InitError, match=r"12 weights are missing, the first is model\.layers\.2\.input_layernorm"):
        init_base(str(deeper), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_base_that_computes_no_finite_logits_is_refused(tmp_path):
    model, fast = qwen2_tied()
    with torch.no_grad():
        model.model.norm.weight[0] = float("nan")
    base = save_base(tmp_path / "base", model, fast)
    with pytest.raises(InitError, match=r"Qwen2ForCausalLM gives logits of shape .*, or some are not finite"):
        init_base(str(base), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_that_cannot_read_the_new_ids_is_refused(source, tmp_path, monkeypatch):
    def per_layer_table(*_, **__):
        raise IndexError("index out of range in self\nand more")

    monkeypatch.setattr(Qwen2ForCausalLM, "forward", per_layer_table)
    with pytest.raises(InitError, match=r"cannot read the new tokens: IndexError: index out of range in self$"):
        init_base(str(source), tmp_path / "out")


def test_an_adapter_is_refused(source, tmp_path):
    base = Path(shutil.copytree(source, tmp_path / "base"))
    adapted = get_peft_model(load_model(source), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    adapted.peft_config["default"].base_model_name_or_path = str(source)
    adapted.save_pretrained(base)
    with pytest.raises(InitError, match="source base: is an adapter; merge it"):
        init_base(str(base), tmp_path / "out")


def test_a_failed_write_leaves_nothing(source, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Manifest, "save", full)
    with pytest.raises(OSError, match="No space left"):
        init_base(str(source), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
