"""Your own base and data, from the command line to a running server: init, HFT, HGPO, evaluation, vLLM."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from test_serve_process import SERVE, Served, post
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lhrm_train.format import ChatTokenizer, Manifest
from lhrm_train.metrics import read_metrics
from lhrm_train.nano import build_tokenizer
from lhrm_train.rows import row_log

TRAIN = [sys.executable, "-m", "lhrm_train"]
RUN = """
threads = 1
[base]
name = "own"
path = "base"
[data]
source = "jsonl"
files = ["hft.jsonl"]
decontaminate = ["test.jsonl"]
[prompts]
source = "jsonl"
files = ["prompts.jsonl"]
[test]
source = "jsonl"
files = ["test.jsonl"]
[reward]
scorer = "own_reward:right"
[hft]
steps = 60
rows = 8
row_length = 96
lr = 3e-3
muon_lr = 0.02
warmup_steps = 5
[hgpo]
steps = 2
prompts = 8
max_new_tokens = 16
row_length = 96
lr = 2e-4
[eval]
samples = 2
max_new_tokens = 16
"""
REWARD = """
def right(problem, answer):
    if not problem.reference:
        raise ValueError("no reference")
    return float(answer.strip() == problem.reference)
"""


def command(folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*TRAIN, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_jsonl(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """An ordinary causal LM without tags, 200 pairs, and everything the commands made of them."""
    folder = tmp_path_factory.mktemp("own")
    tokenizer = build_tokenizer(400)
    plain = json.loads(tokenizer.to_str())
    plain["added_tokens"] = [token for token in plain["added_tokens"] if "|" in token["content"]]
    (folder / "plain").mkdir()
    (folder / "plain" / "raw.json").write_text(json.dumps(plain))
    fast = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "plain" / "raw.json"), eos_token="<|im_end|>", pad_token="<|pad|>"
    )
    fast.save_pretrained(folder / "plain")
    shape = LlamaConfig(
        vocab_size=len(fast), hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=96,
        max_position_embeddings=512, tie_word_embeddings=True, eos_token_id=fast.eos_token_id, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(shape).save_pretrained(folder / "plain")
    pairs = []
    for i in range(100):
        question = f"What comes after {i}?"
        pairs.append({"prompt": question, "answer": str(i + 1), "mode": "no_think"})
        pairs.append({"prompt": question, "answer": str(i + 1), "reasoning": f"{i}+1={i + 1}"})
    write_jsonl(folder / "hft.jsonl", pairs)
    write_jsonl(folder / "prompts.jsonl", [{"prompt": p["prompt"], "answer": p["answer"]} for p in pairs[::2]][:80])
    test = [{"prompt": p["prompt"], "answer": p["answer"], "level": 1 + i % 3} for i, p in enumerate(pairs[160::2])]
    write_jsonl(folder / "test.jsonl", test)
    (folder / "run.toml").write_text(RUN)
    (folder / "own_reward.py").write_text(REWARD)
    command(folder, "init", "--base", "plain", "--out", "base", "--name", "own")
    plan = command(folder, "run", "run.toml", "--out", "runs", "--dry-run")
    assert not (folder / "runs").exists()
    return folder, plan, command(folder, "run", "run.toml", "--out", "runs")


def test_the_base_is_hybrid_ready(run):
    folder, plan, _ = run
    manifest = Manifest.load(folder / "base")
    assert manifest.name == "own"
    assert ChatTokenizer.load(folder / "base").tags == manifest.tags
    assert re.search(r"HFT data: CleaningReport\(read=200, duplicates=0, contaminated=40, kept=160\)", plan)
    assert "(estimate)" in plan


def test_the_data_is_cleaned_and_both_stages_ran(run):
    folder, _, _ = run
    data = json.loads((folder / "runs" / "hft" / "data.json").read_text())
    assert data["cleaning"] == {"read": 200, "duplicates": 0, "contaminated": 40, "kept": 160}
    assert (data["mixture"]["think"], data["mixture"]["no_think"]) == (80, 80)
    hft, hgpo = read_metrics(folder / "runs" / "hft"), read_metrics(folder / "runs" / "hgpo")
    assert [row["step"] for row in hft] == list(range(1, 61))
    assert hft[-1]["loss"] < hft[0]["loss"] / 2
    assert [row["step"] for row in hgpo] == [1, 2]
    assert all(row["invalid"] == 0 for row in hgpo)
    assert any((folder / "runs" / "hft" / "tensorboard").iterdir())
    assert (folder / "runs" / "hgpo" / "curves.png").stat().st_size > 1000


def test_the_run_directory_explains_itself(run):
    folder, _, printed = run
    card = (folder / "runs" / "README.md").read_text()
    assert "own_reward:right" in (folder / "runs" / "run.json").read_text()
    assert "prompts.jsonl" in card
    rows = row_log(folder / "runs" / "evaluation" / "rows.jsonl").read()
    assert len(rows) == 20  # nothing is held out unless it is asked for
    assert "Questions of test.jsonl: read 20" in (folder / "runs" / "evaluation" / "report.md").read_text()
    assert f"prompts={len(rows)}" in printed.splitlines()[-1]
    assert Manifest.load(folder / "runs" / "hgpo" / "checkpoint").evaluation["prompts"] == len(rows)


def test_another_evaluation_of_the_checkpoint(run):
    folder, _, _ = run
    arguments = ["eval", "--model", "runs/hgpo/checkpoint", "--data", "test.jsonl", "--out", "again"]
    printed = command(folder, *arguments, "--set", "eval.samples=1", "--set", "threads=1")
    assert "prompts=20" in printed.splitlines()[-1]
    # Scored and cut as in the run, which nobody had to repeat.
    assert "1 samples per mode at temperature 1, at most 16 new tokens" in printed
    assert "scored by own_reward:right (20)" in printed
    assert (folder / "again" / "curve.png").stat().st_size > 1000


@pytest.mark.engine
def test_the_checkpoint_is_served(run, tmp_path):
    folder, _, _ = run
    served = Served([*SERVE, "--model", str(folder / "runs" / "hgpo" / "checkpoint")], tmp_path)
    try:
        reply = post(served.ready(), model="own", messages=[{"role": "user", "content": "What comes after 7?"}])
    finally:
        served.end()
    assert reply["lhrm"]["mode"] in ("think", "no_think")
    assert 0 < reply["lhrm"]["p_think"] < 1
    assert reply["usage"]["completion_tokens"] >= 1
