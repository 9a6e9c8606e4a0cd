"""The ``lhrm-train`` command: what it refuses, in one line, and what a dry run prints."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT


def call(*arguments, cwd=ROOT):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "lhrm_train", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("run", "nanoo"), 2, "'nanoo' is neither a recipe (nano, "),
        (("run", "nano", "--set", "hgpo.stepz=1"), 2, "unknown setting hgpo.stepz"),
        (("run", "smol", "--dry-run", "--set", "base.path=nowhere", "--set", "base.parameters=0"), 1, "nowhere"),
        (("run", "nano", "--hft", "nowhere", "--out", "{tmp}/x"), 1, "nowhere"),
        (("eval", "--model", "nowhere", "--data", "suite", "--out", "{tmp}/x"), 1, "not an LHRM checkpoint"),
        (("eval", "--url", "localhost:1", "--data", "suite", "--out", "{tmp}/x"), 1, "does not start with http"),
        (("init", "--base", "nowhere", "--out", "{tmp}/x"), 1, "nowhere"),
    ],
)
def test_mistakes_are_one_line(tmp_path, arguments, code, message):
    done = call(*(argument.format(tmp=tmp_path) for argument in arguments))
    assert done.returncode == code, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("lhrm-train: ")
    assert message in last
    assert "Traceback" not in done.stderr


def test_a_dry_run_of_a_recipe_whose_base_is_not_here(tmp_path):
    done = call("run", "qwen2.5-7b", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "base: Qwen/Qwen2.5-Math-7B, 7620.0 million parameters"
    assert "were not tried" in lines[1]
    assert [line.split(" (estimate)")[0] for line in lines[2:]] == ["HFT", "HGPO"]
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_the_nano(tmp_path):
    done = call("run", "nano", "--dry-run", "--set", "threads=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "HFT: 3400 updates; a micro-batch is (24, 224) ids" in done.stdout
    assert "HGPO: 80 steps of 128 prompts x 4 rollouts" in done.stdout
    assert list(tmp_path.iterdir()) == []
