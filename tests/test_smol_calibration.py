"""The savings calibration of lhrm-smol, on the nano."""

import json
import shutil
import sys
from dataclasses import replace

import pytest
from conftest import NANO

from lhrm_train.config import ConfigError, EvalConfig, RewardConfig, RunConfig
from lhrm_train.format import Manifest
from lhrm_train.rows import row_log
from lhrm_train.samplers import LocalSampler
from lhrm_train.smol import __main__ as command
from lhrm_train.smol import calibration
from lhrm_train.smol.calibration import calibrate_smol, everyday_problems
from lhrm_train.smol.data import CHAT_SCORER
from lhrm_train.smol.delta import NAME, apply_delta
from lhrm_train.smol.everyday import Prompt, prompts_of

CONFIG = RunConfig(
    reward=RewardConfig(scorer="exact"),
    eval=EvalConfig(samples=1, max_new_tokens=64, batch=64, chunk=20, resamples=20),
)


@pytest.fixture
def model(tmp_path):
    """A trained checkpoint without a calibration."""
    copied = shutil.copytree(NANO, tmp_path / "trained", ignore=shutil.ignore_patterns("evaluation"))
    replace(Manifest.load(copied), savings_calibration=None).save(copied)
    return copied


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Validation questions that the nano answers directly, and a few everyday prompts."""
    folder = tmp_path / "work" / "data"
    folder.mkdir(parents=True)
    asked = [(f"What is {n}+{m}?", str(n + m)) for n in range(1, 7) for m in range(1, 7)]
    rows = [{"messages": [{"role": "user", "content": q}], "answer": a, "kind": "add", "level": 1} for q, a in asked]
    (folder / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    chat = [Prompt("greeting", f"hello {name}", f"Hello, I am {name}!") for name in ("Ann", "Bob", "Cem")]
    monkeypatch.setattr(calibration, "prompts_of", lambda split: chat if split == "validation" else [])
    return folder


def test_everyday_prompts_are_problems_of_their_split():
    problems = everyday_problems("validation")
    assert [problem.question for problem in problems] == [prompt.prompt for prompt in prompts_of("validation")]
    assert len(problems) > 100
    assert {(p.scorer, p.kind, p.level, p.closed) for p in problems} == {(CHAT_SCORER, "everyday", 0, False)}
    assert len({problem.key for problem in problems}) == len(problems)


def test_questions_and_everyday_prompts_calibrate_the_checkpoint(model, data, tmp_path):
    made = calibrate_smol(model, data, tmp_path / "rows", CONFIG)
    rows = row_log(tmp_path / "rows" / "rows.jsonl").read()
    assert [row.kind for row in rows] == ["add"] * 36 + ["everyday"] * 3
    direct = sum(not row.chooses_think for row in rows)
    assert Manifest.load(model).savings_calibration == made
    assert made.prompts == direct >= 36
    assert sum(one.n for one in made.bins) >= 30
    assert made.bins[0].saving_mean > 5


def test_a_stopped_calibration_goes_on(model, data, tmp_path, monkeypatch):
    calibrate_smol(model, data, tmp_path / "rows", CONFIG)
    whole = (tmp_path / "rows" / "rows.jsonl").read_bytes()
    (tmp_path / "rows" / "rows.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:20]) + b'{"kin')
    asked = []
    complete = LocalSampler.complete

    def counting(self, problems, *rest):
        asked.append(len(problems))
        return complete(self, problems, *rest)

    monkeypatch.setattr(LocalSampler, "complete", counting)
    calibrate_smol(model, data, tmp_path / "rows", CONFIG)
    assert asked == [19, 19]  # both modes of the second chunk
    assert (tmp_path / "rows" / "rows.jsonl").read_bytes() == whole
    with pytest.raises(ConfigError, match="was measured with samples = 1, not 2"):
        calibrate_smol(model, data, tmp_path / "rows", replace(CONFIG, eval=replace(CONFIG.eval, samples=2)))


def test_too_few_questions_calibrate_nothing_and_say_so(model, data, tmp_path, capsys):
    few = data / "validation.jsonl"
    few.write_text("".join(few.read_text().splitlines(keepends=True)[:5]))
    before = Manifest.load(model)
    assert calibrate_smol(model, data, tmp_path / "rows", CONFIG) is None
    assert "no calibration: 8 questions held out" in capsys.readouterr().err
    assert Manifest.load(model) == before


def called(monkeypatch, *arguments):
    monkeypatch.setenv("GLIBC_TUNABLES", "")  # or it would start itself anew
    monkeypatch.setattr(sys, "argv", ["lhrm_train.smol", *map(str, arguments)])
    return command.main()


def test_the_command_calibrates_what_the_delta_carries(model, data, tmp_path, monkeypatch, capsys):
    work = ("--work", data.parent)
    making = ("delta", "--base", NANO, "--trained", model, "--out", tmp_path / "delta")
    assert called(monkeypatch, *work, *making) == 0
    assert f"{model} is not calibrated: its model will state no saving" in capsys.readouterr().err
    settings = ("--set", "eval.samples=1", "--set", "eval.max_new_tokens=64", "--set", "reward.scorer=exact")
    assert called(monkeypatch, *work, "calibrate", "--model", model, *settings) == 0
    assert f"calibration={data.parent / 'calibration'} prompts=" in capsys.readouterr().out
    assert called(monkeypatch, *work, *making) == 0
    assert "not calibrated" not in capsys.readouterr().err
    told = json.loads((tmp_path / "delta" / NAME).read_text())["manifest"]["savings_calibration"]
    assert told["prompts"] >= 36
    apply_delta(NANO, tmp_path / "delta", tmp_path / "merged")
    assert Manifest.load(tmp_path / "merged").savings_calibration == Manifest.load(model).savings_calibration
    assert Manifest.load(tmp_path / "merged").savings_calibration is not None


def test_without_validation_questions_it_says_so(model, tmp_path):
    with pytest.raises(ValueError, match=r"validation\.jsonl"):
        calibrate_smol(model, tmp_path / "nowhere", tmp_path / "rows", CONFIG)
