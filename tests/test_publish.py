"""Publishing: the best run on validation, with every run listed, complete or not at all."""

import errno
import json
from dataclasses import replace

import pytest

from lhrm_train.__main__ import main
from lhrm_train.config import ConfigError
from lhrm_train.format import ChatTokenizer
from lhrm_train.pipeline import run as run_pipeline
from lhrm_train.publish import publish
from lhrm_train.report import key_line
from lhrm_train.suite_report import report_text
from tests.test_pipeline import CONFIG


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    first, second = (tmp_path_factory.mktemp("runs") / name for name in ("first", "second"))
    run_pipeline(first, CONFIG)
    run_pipeline(second, replace(CONFIG, hgpo_seed=1), hft=first / "hft" / "checkpoint")
    return [first, second]


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_publishing_chooses_on_validation_and_lists_every_run(runs, tmp_path):
    into = tmp_path / "published"
    # How the rows were sampled is told by the run, not by the settings of this call.
    line = publish(runs, into, replace(CONFIG, eval=replace(CONFIG.eval, samples=99, max_new_tokens=99)))
    table = json.loads((into / "evaluation" / "runs.json").read_text())
    shipped = [row for row in table if row["shipped"]]
    assert len(shipped) == 1
    assert shipped[0]["validation_hacc"] == max(row["validation_hacc"] for row in table)
    assert line == key_line(shipped[0]["figures"])
    assert {(row["hft_seed"], row["hgpo_seed"]) for row in table} == {(0, 0), (0, 1)}
    record = json.loads((into / "evaluation" / "run.json").read_text())
    assert record["config"]["hgpo_seed"] == shipped[0]["hgpo_seed"]
    assert set(record) == {"config", "environment", "seconds"}
    card = (into / "README.md").read_text()
    assert report_text(into / "evaluation", CONFIG.eval) in card
    assert "2 samples per\nforced mode at temperature 1 and at most 6 new tokens (" in card
    assert "million parameter" in card
    assert ChatTokenizer.load(into).manifest.name == "tiny"
    assert len(list((into / "evaluation").glob("test*.jsonl.gz"))) == 2
    assert not list(into.rglob("rows.jsonl"))
    # A second time replaces it by the same.
    before = contents(into)
    publish(runs, into, CONFIG)
    assert contents(into) == before
    assert [p.name for p in tmp_path.iterdir()] == ["published"]


@pytest.mark.parametrize("order", [0, 1], ids=["a worse one", "a better one"])
def test_a_run_is_added_beside_those_that_are_listed(runs, tmp_path, monkeypatch, order):
    # Two runs of a tiny model may be equally good.
    score = {runs[0]: 0.4 + 0.2 * order, runs[1]: 0.5}
    monkeypatch.setattr("lhrm_train.publish.validation_score", lambda run, margin: score[run])
    together, one_by_one = tmp_path / "together", tmp_path / "one"
    publish(runs[::-1], together, CONFIG)
    publish([runs[1]], one_by_one, CONFIG)
    publish([runs[0]], one_by_one, CONFIG, adding=True)
    assert contents(one_by_one) == contents(together)
    shipped = next(row for row in json.loads((one_by_one / "evaluation" / "runs.json").read_text()) if row["shipped"])
    assert shipped["hgpo_seed"] == 1 - order
    with pytest.raises(ConfigError, match="two runs have the seeds hft0-hgpo0"):
        publish([runs[0]], one_by_one, CONFIG, adding=True)
    assert contents(one_by_one) == contents(together)


def test_runs_that_were_measured_otherwise_are_not_compared(runs, tmp_path):
    into = tmp_path / "published"
    publish([runs[1]], into, CONFIG)
    record = json.loads((into / "evaluation" / "run.json").read_text())
    record["config"]["eval"]["seed"] = 5
    (into / "evaluation" / "run.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=f"eval.seed: a run was measured with 5, another with {CONFIG.eval.seed}"):
        publish([runs[0]], into, CONFIG, adding=True)


def test_the_command_adds(runs, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "lhrm_train.publish.publish", lambda *given, adding: asked.append((given[:2], adding)) or "done=1"
    )
    monkeypatch.setenv("GLIBC_TUNABLES", "")  # or it would start itself anew
    for flags in ([], ["--add"]):
        monkeypatch.setattr("sys.argv", ["lhrm-train", "publish", str(runs[0]), "--into", str(tmp_path), *flags])
        main()
    assert asked == [(([runs[0]], tmp_path), False), (([runs[0]], tmp_path), True)]


def test_nothing_is_added_to_a_checkpoint_that_lists_no_runs(runs, tmp_path):
    into = tmp_path / "published"
    publish([runs[1]], into, CONFIG)
    (into / "evaluation" / "run.json").unlink()
    with pytest.raises(ConfigError, match=r"run\.json not found: .* was not published with its runs"):
        publish([runs[0]], into, CONFIG, adding=True)
    with pytest.raises(ConfigError, match="not published with its runs"):
        publish([runs[0]], tmp_path / "new", CONFIG, adding=True)


def test_a_directory_that_is_no_checkpoint_is_never_touched(runs, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ConfigError, match="exists and is not a checkpoint, so it is not replaced"):
        publish(runs, tmp_path, CONFIG)
    with pytest.raises(ConfigError, match="exists and is not a checkpoint"):
        publish(runs, tmp_path / "thesis.txt", CONFIG)
    assert contents(tmp_path) == {"thesis.txt": b"years of work"}


def test_a_run_is_not_published_into_itself(runs):
    before = contents(runs[0])
    with pytest.raises(ConfigError, match="lie in one another"):
        publish(runs, runs[0] / "hgpo" / "checkpoint", CONFIG)
    assert contents(runs[0]) == before


def test_a_full_disk_leaves_what_was_published_before(runs, tmp_path, monkeypatch):
    into = tmp_path / "published"
    publish(runs, into, CONFIG)
    before = contents(into)

    def fills(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lhrm_train.publish.model_card", fills)  # among the last steps
    with pytest.raises(OSError, match="No space left"):
        publish(runs, into, CONFIG)
    assert contents(into) == before
    assert [p.name for p in tmp_path.iterdir()] == ["published"]


@pytest.mark.parametrize(
    "missing", ["run.json", "evaluation/test.jsonl.gz", "hgpo/curves.png", "hgpo/checkpoint/lhrm.json"]
)
def test_an_unfinished_run_is_named(runs, tmp_path, missing):
    (runs[1] / missing).rename(tmp_path / "away")
    try:
        with pytest.raises(ConfigError, match=str(runs[1])):
            publish(runs, tmp_path / "published", CONFIG)
    finally:
        (tmp_path / "away").rename(runs[1] / missing)
    assert not (tmp_path / "published").exists()
