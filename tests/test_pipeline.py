"""A whole tiny run on the suite: its stages, what it leaves behind, and what it refuses."""

import json
from dataclasses import replace

import pytest

from lhrm_train.config import BaseConfig, ConfigError, DataConfig, EvalConfig, HFTConfig, HGPOConfig, RunConfig
from lhrm_train.format import FormatError, Manifest
from lhrm_train.manifest_settings import recorded
from lhrm_train.pipeline import run as run_pipeline
from lhrm_train.report import key_line
from lhrm_train.rows import read_rows, row_log
from lhrm_train.suite_report import figures_of
from tests.checkpoints import tiny_checkpoint

CONFIG = RunConfig(
    base=BaseConfig(name="tiny", hidden_size=32, layers=2, heads=2, intermediate_size=48),
    hft=HFTConfig(steps=2, rows=4),
    hgpo=HGPOConfig(steps=1, prompts=3, max_new_tokens=6),
    eval=EvalConfig(prompts=40, samples=2, max_new_tokens=6, context_questions=3, hft_samples=1, validation_samples=1),
)


def only(*stages, config=CONFIG):
    return replace(config, stages=stages)


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
    assert record["hft"] is None
    assert report.splitlines()[-1] == key_line(figures_of(out / "evaluation", CONFIG.eval))
    assert "hft_accuracy_think=" in report
    assert "at most 6 new tokens" in report.splitlines()[0]
    assert (out / "hgpo" / "curves.png").stat().st_size > 1000
    assert (out / "evaluation" / "difficulty.png").stat().st_size > 1000
    card = (out / "README.md").read_text()
    assert "Base: random weights. Stages run here: base, hft, hgpo, eval. Checkpoint: `hgpo/checkpoint`." in card


def test_a_run_goes_on_with_its_own_settings_only(run):
    out, _ = run
    with pytest.raises(ConfigError, match=r"hgpo\.lr = 0\.0002, not 0\.5: use another --out"):
        run_pipeline(out, replace(CONFIG, hgpo=replace(CONFIG.hgpo, lr=0.5)))
    before = (out / "evaluation" / "report.md").read_bytes()
    with pytest.raises(ConfigError, match=r"was measured with temperature = 1\.0, not 0\.5"):
        run_pipeline(out, replace(CONFIG, eval=replace(CONFIG.eval, temperature=0.5)))
    assert (out / "evaluation" / "report.md").read_bytes() == before


def test_figures_come_from_the_raw_rows(run):
    out, _ = run
    rows = read_rows(out / "evaluation" / "test.jsonl.gz")
    figures = figures_of(out / "evaluation", CONFIG.eval)
    assert len(rows) == figures["prompts"] == 40
    think = sum(sum(row.think.scores) / 2 for row in rows) / 40
    assert figures["accuracy_think"] == round(think, 4)
    assert Manifest.load(out / "hgpo" / "checkpoint").evaluation["hacc"] == figures["hacc"]


def test_checkpoints_know_how_their_run_scores_and_samples(run):
    out, _ = run
    for stage in ("hft", "hgpo"):
        recipe = Manifest.load(out / stage / "checkpoint").recipe
        assert (recipe["stage"], recipe["eval"]["max_new_tokens"], recipe["reward"]["scorer"]) == (stage, 6, "exact")


def stamps(out):
    return {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.suffix in (".safetensors", ".gz")}


@pytest.mark.parametrize("stages", [CONFIG.stages, ("eval",), ("base", "eval"), ("hft", "eval")])
def test_a_later_call_repeats_nothing_and_evaluates_the_last_checkpoint(run, stages):
    out, report = run
    before, base = stamps(out), (out / "base" / "lhrm.json").read_bytes()
    assert run_pipeline(out, only(*stages)) == report
    assert stamps(out) == before
    assert (out / "base" / "lhrm.json").read_bytes() == base
    assert Manifest.load(out / "hft" / "checkpoint").evaluation == {}


def test_curves_that_a_kill_prevented_are_drawn_later(run):
    out, _ = run
    (out / "hgpo" / "curves.png").unlink()
    stamp = (out / "hft" / "curves.png").stat().st_mtime_ns
    run_pipeline(out, only("hgpo"))
    assert (out / "hgpo" / "curves.png").stat().st_size > 1000
    assert (out / "hft" / "curves.png").stat().st_mtime_ns == stamp


def test_stages_one_by_one(tmp_path):
    assert run_pipeline(tmp_path, only("base")) == f"checkpoint={tmp_path / 'base'}"
    assert (tmp_path / "base" / "lhrm.json").is_file()
    assert run_pipeline(tmp_path, only("hft")) == f"checkpoint={tmp_path / 'hft' / 'checkpoint'}"
    # HGPO starts from the HFT checkpoint that is there, not from the base.
    (tmp_path / "base" / "model.safetensors").unlink()
    assert run_pipeline(tmp_path, only("hgpo")) == f"checkpoint={tmp_path / 'hgpo' / 'checkpoint'}"
    assert json.loads((tmp_path / "run.json").read_text())["seconds"].keys() == {"base", "hft", "hgpo"}


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (("hft",), "stage 'hft' has nothing to start from: .*base is none; add 'base' to stages"),
        (("base", "hgpo"), "stage 'hgpo' has nothing to start from: .* add 'hft' to stages, or name one"),
        (("eval",), "stage 'eval' has no checkpoint"),
    ],
)
def test_a_stage_without_its_input_is_one_error(tmp_path, stages, message):
    with pytest.raises(ConfigError, match=message):
        run_pipeline(tmp_path, only(*stages))
    assert not (tmp_path / "evaluation").exists()


def test_an_untrained_base_is_evaluated_only_when_it_is_named(tmp_path):
    run_pipeline(tmp_path, only("base"))
    with pytest.raises(ConfigError, match="stage 'eval' has no checkpoint"):
        run_pipeline(tmp_path, only("eval"))
    assert "prompts=40 " in run_pipeline(tmp_path, only("base", "eval"))
    # Its rows are in the way of the checkpoint that HFT would make, which is said before HFT trains.
    with pytest.raises(ConfigError, match=r"evaluation holds an evaluation of an earlier checkpoint .*: move it"):
        run_pipeline(tmp_path, CONFIG)
    assert not (tmp_path / "hft").exists()


def test_no_manifest_outside_the_run_is_written(run, tmp_path):
    hft = tiny_checkpoint(tmp_path / "hft", name="elsewhere")
    before = (hft / "lhrm.json").read_bytes()
    out = tmp_path / "run"
    run_pipeline(out, only("eval"), hft=hft)
    assert (hft / "lhrm.json").read_bytes() == before
    card = (out / "README.md").read_text()
    assert card.startswith("# elsewhere\n")
    assert "Base: the HFT checkpoint elsewhere, weights " in card
    assert "Stages run here: eval." in card
    assert "HFT data" not in card
    assert "HGPO objective" not in card
    given = replace(CONFIG, base=replace(CONFIG.base, path=str(hft)))
    run_pipeline(tmp_path / "given", only("base", "eval", config=given))
    assert (hft / "lhrm.json").read_bytes() == before


def test_an_hft_checkpoint_that_is_none(tmp_path):
    with pytest.raises(FormatError, match="not an LHRM checkpoint"):
        run_pipeline(tmp_path / "run", CONFIG, hft=tmp_path / "nowhere")


def test_a_run_on_files_reports_every_question_and_what_was_left_out(run, tmp_path):
    out, _ = run
    test = tmp_path / "test.jsonl"
    rows = [{"prompt": f"What is {i}?", "answer": str(i)} for i in (*range(12), 3)]
    test.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = only("hft", "eval", config=replace(CONFIG, test=DataConfig("jsonl", (str(test),))))
    ours = replace(config, base=replace(config.base, path=str(out / "base")))
    report = run_pipeline(tmp_path / "run", ours)
    assert "12 of 12 prompts" in report
    assert "read 13, duplicates 1" in (tmp_path / "run" / "evaluation" / "report.md").read_text()
    assert len(row_log(tmp_path / "run" / "evaluation" / "rows.jsonl").read()) == 12
    manifest = Manifest.load(tmp_path / "run" / "hft" / "checkpoint")
    assert (manifest.evaluation["prompts"], manifest.savings_calibration) == (12, None)
    assert manifest.recipe["reward"] == json.loads(json.dumps(recorded(CONFIG)["reward"]))
