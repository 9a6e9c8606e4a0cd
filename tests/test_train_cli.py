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


def test_the_nano_trains_without_the_packages_that_other_data_need(tmp_path):
    # `make setup` does not install these.
    absent = "datasets peft tensorboard math_verify reasoning_gym gguf pandas pyarrow".split()
    program = (
        "import sys\n"
        f"for name in {absent!r}: sys.modules[name] = None\n"
        "sys.argv = ['lhrm-train', 'run', 'nano', '--out', sys.argv[1], *sys.argv[2:]]\n"
        "from lhrm_train.__main__ import main\n"
        "sys.exit(main())\n"
    )
    sizes = {"base.hidden_size": 32, "base.layers": 1, "base.heads": 2, "base.intermediate_size": 48}
    sizes |= {"hft.steps": 1, "hft.rows": 2, "hgpo.steps": 1, "hgpo.prompts": 2, "hgpo.max_new_tokens": 2}
    sizes |= {"eval.prompts": 40, "eval.samples": 2, "eval.max_new_tokens": 2, "eval.context_questions": 2}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path), *(f"--set={name}={value}" for name, value in sizes.items())],
        env={**os.environ, "PYTHONPATH": str(ROOT), "GLIBC_TUNABLES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1].startswith("prompts=40 ")
    assert not (tmp_path / "hft" / "tensorboard").exists()
