import json
from dataclasses import replace

import pytest

from lhrm_train.config import BaseConfig, ConfigError, EvalConfig, HFTConfig, HGPOConfig, RunConfig
from lhrm_train.format import ChatTokenizer, Manifest
from lhrm_train.pipeline import run as run_pipeline
from lhrm_train.publish import publish
from lhrm_train.report import key_line
from lhrm_train.rows import read_rows
from lhrm_train.suite_report import figures_of, report_text

CONFIG = RunConfig(
    base=BaseConfig(name="tiny", hidden_size=32, layers=2, heads=2, intermediate_size=48),
    hft=HFTConfig(steps=2, rows=4),
    hgpo=HGPOConfig(steps=1, prompts=3, max_new_tokens=6),
    eval=EvalConfig(prompts=40, samples=2, max_new_tokens=6, context_questions=3, hft_samples=1, validation_samples=1),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    return out, run_pipeline(out, CONFIG)


def test_the_run_explains_itself(run):
    out, report = run
    record = json.loads((out / "run.json").read_text())
    assert set(record["seconds"]) == {"base", "hft", "hgpo", "eval"}
    assert record["config"]["hgpo"]["steps"] == 1
    assert record["environment"]["torch"]
    assert report.splitlines()[-1] == key_line(figures_of(out / "evaluation", CONFIG.eval))
    assert "hft_accuracy_think=" in report
    assert (out / "hgpo" / "curves.png").stat().st_size > 1000
    assert (out / "evaluation" / "difficulty.png").stat().st_size > 1000


def test_a_run_goes_on_with_its_own_settings_only(run):
    out, _ = run
    with pytest.raises(ConfigError, match=r"hgpo\.lr = 0\.0002, not 0\.5: use another --out"):
        run_pipeline(out, replace(CONFIG, hgpo=replace(CONFIG.hgpo, lr=0.5)))


def test_figures_come_from_the_raw_rows(run):
    out, _ = run
    rows = read_rows(out / "evaluation" / "test.jsonl.gz")
    figures = figures_of(out / "evaluation", CONFIG.eval)
    assert len(rows) == figures["prompts"] == 40
    think = sum(sum(row.think.scores) / 2 for row in rows) / 40
    assert figures["accuracy_think"] == round(think, 4)
    assert Manifest.load(out / "hgpo" / "checkpoint").evaluation["hacc"] == figures["hacc"]


def test_a_second_call_repeats_nothing(run):
    out, report = run
    files = [p for p in out.rglob("*") if p.suffix in (".safetensors", ".gz")]
    stamps = {p: p.stat().st_mtime_ns for p in files}
    assert run_pipeline(out, CONFIG) == report
    assert {p: p.stat().st_mtime_ns for p in files} == stamps


def test_publishing_chooses_on_validation_and_lists_every_run(run, tmp_path):
    out, _ = run
    second = tmp_path / "second"
    other = replace(CONFIG, hgpo_seed=1)
    run_pipeline(second, other, hft=out / "hft" / "checkpoint")
    into = tmp_path / "published"
    line = publish([out, second], into, CONFIG)
    table = json.loads((into / "evaluation" / "runs.json").read_text())
    shipped = [row for row in table if row["shipped"]]
    assert len(shipped) == 1
    assert shipped[0]["validation_hacc"] == max(row["validation_hacc"] for row in table)
    assert line == key_line(shipped[0]["figures"])
    assert {(row["hft_seed"], row["hgpo_seed"]) for row in table} == {(0, 0), (0, 1)}
    card = (into / "README.md").read_text()
    assert report_text(into / "evaluation", CONFIG.eval) in card
    assert "million parameter" in card
    assert ChatTokenizer.load(into).manifest.name == "tiny"
    assert len(list((into / "evaluation").glob("test*.jsonl.gz"))) == 2
