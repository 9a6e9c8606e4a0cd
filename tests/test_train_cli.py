"""The ``lhrm-train`` command: what it refuses, in one line, and what a dry run prints."""

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT

from lhrm_train.__main__ import main
from lhrm_train.config import ConfigError


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
        (("eval", "--url", "http://localhost:1", "--data", "suite", "--out", "{tmp}/x", "--calibrate"), 1, "--model"),
        (("publish", "{tmp}/run", "--into", "{tmp}/x"), 1, "run.json not found: not the directory of a run"),
    ],
)
def test_mistakes_are_one_line(tmp_path, arguments, code, message):
    done = call(*(argument.format(tmp=tmp_path) for argument in arguments))
    assert done.returncode == code, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("lhrm-train: ")
    assert message in last
    assert "Traceback" not in done.stderr


def call_here(monkeypatch, capsys, *arguments):
    """Run the command in this process; returns its status and the lines on stderr."""
    monkeypatch.setenv("GLIBC_TUNABLES", "")  # or it would start itself anew
    monkeypatch.setattr(sys, "argv", ["lhrm-train", *arguments])
    status = main()
    return status, capsys.readouterr().err.splitlines()


def raising(error):
    def instead(*arguments, **options):
        raise error

    return instead


INIT = ("init", "--base", "b", "--out", "o")
EVAL = ("eval", "--url", "http://localhost:1", "--data", "suite", "--out", "o")


@pytest.mark.parametrize(
    ("arguments", "where", "error", "status", "line"),
    [
        (INIT, "init.init_base", KeyboardInterrupt(), 130, "interrupted"),
        (EVAL, "evaluation.run_evaluation", KeyboardInterrupt(), 130, "interrupted; the same command goes on"),
        (EVAL, "evaluation.run_evaluation", OSError(errno.ENOSPC, "No space left on device", "rows.jsonl"), 1,
         "[Errno 28] No space left on device: 'rows.jsonl'"),
        (EVAL, "evaluation.run_evaluation", ConfigError("two\n  lines"), 1, "two lines"),
    ],
)  # fmt: skip
def test_what_ends_a_command_is_one_line(monkeypatch, capsys, arguments, where, error, status, line):
    monkeypatch.setattr(f"lhrm_train.{where}", raising(error))
    assert call_here(monkeypatch, capsys, *arguments) == (status, [f"lhrm-train: {line}"])


def test_a_directory_without_permission_or_a_full_disk(monkeypatch, capsys):
    status, lines = call_here(monkeypatch, capsys, "prompts", "--count", "1", "--out", "/dev/full")
    assert (status, len(lines)) == (1, 1)
    assert "No space left on device" in lines[0]


@pytest.mark.parametrize(("flags", "overwrite"), [((), False), (("--overwrite",), True)])
def test_init_overwrites_only_when_told_to(monkeypatch, capsys, flags, overwrite):
    asked = []
    monkeypatch.setattr("lhrm_train.init.init_base", lambda *arguments, **options: asked.append((arguments, options)))
    assert call_here(monkeypatch, capsys, *INIT, *flags) == (0, [])
    assert asked == [(("b", Path("o"), None, 0), {"overwrite": overwrite})]


def test_an_evaluation_starts_from_the_settings_of_the_run(monkeypatch, capsys, tmp_path, nano_tokenizer):
    recipe = {"reward": {"scorer": "math"}, "eval": {"max_new_tokens": 8192}}
    replace(nano_tokenizer.manifest, recipe=recipe).save(tmp_path)
    asked = []
    monkeypatch.setattr("lhrm_train.evaluation.run_evaluation", lambda *arguments, **options: asked.append(arguments))
    what = ("eval", "--model", str(tmp_path), "--data", "suite", "--out", "o")
    assert call_here(monkeypatch, capsys, *what) == (0, [])
    assert call_here(monkeypatch, capsys, *what, "--set", "eval.max_new_tokens=9") == (0, [])
    found = [(config.reward.scorer, config.eval.max_new_tokens) for *_, config, _ in asked]
    assert found == [("math", 8192), ("math", 9)]


def test_a_dry_run_of_a_recipe_whose_base_is_not_here(tmp_path):
    done = call("run", "qwen2.5-7b", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "base: Qwen/Qwen2.5-Math-7B, 7620.0 million parameters"
    assert "were not tried" in lines[1]
    estimates = [line for line in lines[2:] if "(estimate)" in line]
    assert [line.split(" (estimate)")[0] for line in estimates] == ["HFT", "HGPO"]
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_the_nano(tmp_path):
    done = call("run", "nano", "--dry-run", "--set", "threads=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "HFT: 2400 updates; a micro-batch is (22, 224) ids" in done.stdout
    assert "HGPO: 60 steps of 128 prompts x 4 rollouts" in done.stdout
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


def test_a_dry_run_says_what_the_run_would_refuse():
    done = call("run", "nano", "--dry-run", "--set", "hft.row_length=2000")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("lhrm-train: row_length = 2000: the model has 1024 positions")


def test_a_count_of_prompts_below_one_is_refused():
    done = call("prompts", "--count", "-1", "--out", "unused.jsonl")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith("argument --count: '-1' is not a whole number of at least 1")


def test_more_prompts_of_a_kind_than_there_are_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lhrm_train.suite.mix.MOST_REPEATS", 20)
    arguments = ("prompts", "--kind", "parity", "--count", "20000", "--out", str(tmp_path / "p.jsonl"))
    status, lines = call_here(monkeypatch, capsys, *arguments)
    assert status == 1
    assert "the split 'test' of parity has" in lines[-1]
    assert not (tmp_path / "p.jsonl").exists()
