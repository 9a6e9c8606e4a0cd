import json
import shutil

import pytest
import torch

from lhrm_train.checkpoint import load_model, save_checkpoint
from lhrm_train.digest import weights_digest
from lhrm_train.format import ChatTokenizer, Manifest
from lhrm_train.init import init_base
from lhrm_train.smol import delta as delta_module
from lhrm_train.smol.delta import (
    NAME,
    DeltaError,
    apply_delta,
    base_digest,
    logits_of,
    make_delta,
    read_delta,
    trained_digest,
)
from tests.bases import llama_tied, qwen3_untied, save_base

RANK = 3


@pytest.fixture(scope="module", params=[llama_tied, qwen3_untied], ids=lambda maker: maker.__name__)
def base(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("smol-delta")
    return init_base(str(save_base(folder / "raw", *request.param())), folder / "base", "tiny")


@torch.no_grad()
def trained(base, out, rank=RANK, every_word=False):
    """What training with adapters leaves: low-rank changes, new rows of the tags, and moved norms."""
    torch.manual_seed(5)
    model, tags = load_model(base), Manifest.load(base).tags
    words = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    for parameter in model.parameters():
        if id(parameter) in words:
            parameter[[tags.think, tags.no_think]] += 0.5
            if every_word:
                parameter += 0.02 * torch.randn(len(parameter), 2) @ torch.randn(2, parameter.shape[1])
        elif parameter.ndim == 2:
            parameter += 0.05 * torch.randn(parameter.shape[0], rank) @ torch.randn(rank, parameter.shape[1])
        else:
            parameter += 0.1
    save_checkpoint(model, Manifest.load(base), base, out)
    return out


def gap(a, b):
    rows = zip(
        logits_of(load_model(a), ChatTokenizer.load(a)), logits_of(load_model(b), ChatTokenizer.load(b)), strict=True
    )
    return max(float((x - y).abs().max()) for x, y in rows)


@pytest.mark.parametrize("every_word", [False, True])
def test_a_delta_gives_the_trained_model_back(base, tmp_path, every_word):
    target = trained(base, tmp_path / "trained", every_word=every_word)
    figures = make_delta(base, target, tmp_path / "delta", RANK)
    apply_delta(base, tmp_path / "delta", tmp_path / "merged")
    before, after = gap(base, target), gap(tmp_path / "merged", target)
    assert before > 0.5
    assert after < 0.03 * before
    assert figures["kept"] > 0.999
    assert figures["logit_gap"] == pytest.approx(after, abs=1e-4)
    old, new = load_model(target), load_model(tmp_path / "merged")
    tags = Manifest.load(base).tags
    assert old.get_input_embeddings().weight[tags.think].equal(new.get_input_embeddings().weight[tags.think])
    norms = [(p, q) for p, q in zip(old.parameters(), new.parameters(), strict=True) if p.ndim == 1]
    assert norms
    assert all(p.equal(q) for p, q in norms)
    assert Manifest.load(tmp_path / "merged") == Manifest.load(target)
    assert (tmp_path / "merged/tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()


def test_a_model_is_known_by_the_checkpoint_that_its_delta_was_made_of(base, tmp_path):
    target, model = trained(base, tmp_path / "trained"), tmp_path / "model"
    make_delta(base, target, model / "delta", RANK)
    apply_delta(base, model / "delta", tmp_path / "merged")
    assert trained_digest(model) == trained_digest(target) == weights_digest(target)
    assert trained_digest(tmp_path / "merged") != trained_digest(target)


def test_a_smaller_rank_keeps_less_and_says_so(base, tmp_path):
    target = trained(base, tmp_path / "trained", rank=8)
    kept = [make_delta(base, target, tmp_path / f"delta{rank}", rank)["kept"] for rank in (1, 4, 8)]
    assert kept[0] < kept[1] < 0.97 < 0.999 < kept[2]


def test_an_unchanged_model_has_an_empty_delta(base, tmp_path):
    figures = make_delta(base, base, tmp_path / "delta")
    size = (tmp_path / "delta" / NAME).stat().st_size
    assert figures == {"kept": 1.0, "bytes": size, "logit_gap": 0.0}
    apply_delta(base, tmp_path / "delta", tmp_path / "merged")
    assert gap(base, tmp_path / "merged") == 0


def test_files_are_small_listed_and_checked(base, tmp_path, monkeypatch):
    monkeypatch.setattr(delta_module, "LARGEST_FILE", 5000)
    out = tmp_path / "delta"
    figures = make_delta(base, trained(base, tmp_path / "trained"), out, RANK)
    about, tensors = read_delta(out)
    files = [entry["name"] for entry in about["files"]]
    assert len(files) >= 3
    assert {path.name for path in out.iterdir()} == {NAME, *files}
    assert all((out / entry["name"]).stat().st_size == entry["bytes"] for entry in about["files"])
    sizes = [path.stat().st_size for path in out.iterdir()]
    assert max(sizes) <= 5000 < sum(sizes) == figures["bytes"]
    assert {(name.rpartition(".")[2], tensor.dtype) for name, tensor in tensors.items()} == {
        ("up", torch.int8),
        ("down", torch.int8),
        ("scale", torch.float32),
        ("value", torch.bfloat16),
        ("rows", torch.bfloat16),
        ("ids", torch.int32),
    }
    damaged = out / files[1]
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(DeltaError, match=rf"{files[1]}: is missing, or its sha256 is not"):
        apply_delta(base, out, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("LARGEST_DELTA", 1000, r"the delta has \d+ bytes, at most 1000 are allowed; lower its rank"),
        ("LARGEST_FILE", 400, r"\w+\.(up|down|value|rows) takes \d+ bytes, at most 400 fit into a file"),
        # Headers that are larger than was thought.
        ("TENSOR_HEADER", -4000, r"delta-01\.safetensors has \d+ bytes, at most 5000 are allowed"),
    ],
)
def test_a_delta_that_is_too_large_is_refused(base, tmp_path, monkeypatch, limit, value, message):
    monkeypatch.setattr(delta_module, "LARGEST_FILE", 5000)
    monkeypatch.setattr(delta_module, limit, value)
    out = tmp_path / "delta"
    out.mkdir()
    (out / NAME).write_text("the one before")
    with pytest.raises(DeltaError, match=message):
        make_delta(base, trained(base, tmp_path / "trained"), out, RANK)
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [(NAME, "the one before")]


def edited(folder, change):
    about = json.loads((folder / NAME).read_text())
    change(about)
    (folder / NAME).write_text(json.dumps(about))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about: about.update(format=1), "format = 1: 2 is the one known here"),
        (lambda about: about.update(base="other"), "is for the base 'other', not"),
        (lambda about: about.pop("files"), r"cannot be read: KeyError\('files'\)"),
        (lambda about: about.pop("base_weights"), r"cannot be read: KeyError\('base_weights'\)"),
        (lambda about: about.update(base_weights="other"), r"base: the digest of its weights is \w{16}, not other"),
        (lambda about: about["checks"][0]["top"][0].__setitem__(1, 1e3), "logit of the merged model is .* off"),
        (lambda about: about["checks"].pop(), "not the prompts known here"),
        (lambda about: about["manifest"]["tags"].update(think=0), "its tags .* are not those of the base"),
    ],
)
def test_a_delta_that_does_not_fit_is_refused(base, tmp_path, change, message):
    out = tmp_path / "delta"
    make_delta(base, trained(base, tmp_path / "trained"), out, RANK)
    edited(out, change)
    with pytest.raises(DeltaError, match=message):
        apply_delta(base, out, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_base_that_is_another_one_is_refused(base, tmp_path):
    out, other = tmp_path / "delta", tmp_path / "other"
    make_delta(base, trained(base, tmp_path / "trained"), out, RANK)
    model = load_model(base)
    with torch.no_grad():
        next(p for p in model.parameters() if p.ndim == 1)[0] += 0.01  # too little for the logits to tell
    save_checkpoint(model, Manifest.load(base), base, other)
    with pytest.raises(
        DeltaError, match=rf"other: the digest of its weights is \w+, not \w+; {out} is for another base"
    ):
        apply_delta(other, out, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@torch.no_grad()
def test_rows_that_are_computed_here_do_not_make_another_base(base, tmp_path):
    model, tags = load_model(base), Manifest.load(base).tags
    before = base_digest(model, base)
    words = model.get_input_embeddings().weight
    words[tags.think] += 0.001
    words[-1] += 0.001  # beyond the tokenizer's ids
    assert base_digest(model, base) == before
    words[ChatTokenizer.load(base).encode_text("a")[0]] += 0.1
    assert base_digest(model, base) != before


def test_models_with_other_tokenizers_have_no_delta(base, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(base, other)
    spec = json.loads((other / "tokenizer.json").read_text())
    (other / "tokenizer.json").write_text(json.dumps(spec))  # the same ids, other bytes
    with pytest.raises(DeltaError, match="has another tokenizer"):
        make_delta(base, other, tmp_path / "delta")


def test_a_tensor_that_does_not_fit_is_named(base):
    model = load_model(base)
    name = next(name for name, p in model.named_parameters() if p.ndim == 1)
    with pytest.raises(DeltaError, match="nobody: the base has no such parameter"):
        delta_module._merge(model, {"nobody.value": torch.zeros(1)})
    with pytest.raises(DeltaError, match=rf"{name}: does not fit the base of shape"):
        delta_module._merge(model, {f"{name}.value": torch.zeros(7)})
