"""Two training processes under torchrun do the work of one with twice the data."""

import json
import os
import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from lhrm_train.checkpoint import load_model
from lhrm_train.metrics import read_metrics

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


def train(out, processes, **more):
    settings = [f"--set={name}={value}" for name, value in {**SETTINGS, **more}.items()]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), "-m", "lhrm_train"]
    done = subprocess.run(
        [sys.executable, *launch, "run", "nano", "--out", str(out), *settings],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


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
