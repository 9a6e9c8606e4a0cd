"""Two training processes under torchrun do the work of one with twice the data."""

import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from lhrm_train.checkpoint import load_model
from lhrm_train.config import BaseConfig
from lhrm_train.metrics import read_metrics
from lhrm_train.nano import build_base

SETTINGS = {
    "threads": 1,
    "stages": '["base", "hft", "hgpo"]',
    "base.hidden_size": 32,
    "base.layers": 1,
    "base.heads": 2,
    "base.intermediate_size": 48,
    "hft.steps": 2,
    "hft.row_length": 224,
    "hft.muon_lr": 0,
    "hgpo.steps": 1,
    "hgpo.prompts": 4,
    "hgpo.max_new_tokens": 4,
    "hgpo.minibatches": 1,
}


def launch(processes, *command):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), "-m"]
    done = subprocess.run(
        [sys.executable, *torchrun, *map(str, command)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def train(out, processes, **more):
    settings = [f"--set={name}={value}" for name, value in {**SETTINGS, **more}.items()]
    return launch(processes, "lhrm_train", "run", "nano", "--out", out, *settings)


@pytest.mark.slow
def test_two_processes_equal_accumulation_in_one(tmp_path):
    printed = train(tmp_path / "two", 2, **{"hft.rows": 4})
    train(tmp_path / "one", 1, **{"hft.rows": 4, "hft.accumulation": 2})
    two, one = read_metrics(tmp_path / "two" / "hft"), read_metrics(tmp_path / "one" / "hft")
    assert [row["tokens"] for row in two] == [row["tokens"] for row in one]
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], rel=1e-3)
    first, second = (load_model(tmp_path / name / "hft" / "checkpoint").state_dict() for name in ("two", "one"))
    assert all(torch.allclose(first[key], second[key], atol=2e-2) for key in first)
    assert json.loads((tmp_path / "two" / "run.json").read_text())["seconds"].keys() == {"base", "hft", "hgpo"}
    assert [row["step"] for row in read_metrics(tmp_path / "two" / "hgpo")] == [1]
    assert printed.splitlines()[-1] == f"checkpoint={tmp_path / 'two' / 'hgpo' / 'checkpoint'}"


@pytest.mark.slow
def test_split_weights_train_save_and_resume_as_whole_ones_do(tmp_path):
    build_base(tmp_path / "base", BaseConfig(hidden_size=32, layers=2, heads=2, intermediate_size=48), seed=0)
    for how in ("shard", "whole"):
        launch(2, "tests.shard_worker", tmp_path / "base", tmp_path / how, how)
    for stage in ("hft", "hgpo"):
        split, whole = (read_metrics(tmp_path / how / stage) for how in ("shard", "whole"))
        assert [row["step"] for row in split] == [1, 2, 3, 4]
        for one, other in zip(split, whole, strict=True):
            assert one == pytest.approx(other, rel=1e-3, abs=1e-4)
        assert split[-1]["grad_norm"] > 0
        first, second = (load_model(tmp_path / how / stage / "checkpoint").state_dict() for how in ("shard", "whole"))
        assert all(torch.allclose(first[key], second[key], atol=1e-3) for key in first)
    assert whole[-1]["kl"] > 0  # the reference of step 4 is the policy after step 2
