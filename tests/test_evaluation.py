"""What ``lhrm-train eval`` asks: which questions, which of them are held out, and what it writes where."""

import json
from dataclasses import replace

import pytest

from lhrm_train.calibration import calibrate
from lhrm_train.config import ConfigError, DataConfig, EvalConfig, RunConfig
from lhrm_train.evaluation import data_named, evaluate_questions, questions_of, run_evaluation
from lhrm_train.format import Manifest
from lhrm_train.rows import ModeSamples, Row, row_log
from tests.checkpoints import tiny_checkpoint
from tests.test_evaluate import Scripted

CONFIG = RunConfig(eval=EvalConfig(samples=1, max_new_tokens=4, prompts=30, resamples=20))


def write(path, count, repeat=0):
    rows = [{"prompt": f"What is {i}?", "answer": str(i)} for i in range(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, *rows[:repeat]]))
    return path


@pytest.fixture
def model(tmp_path):
    return tiny_checkpoint(tmp_path / "model")


def test_questions_are_counted(tmp_path):
    config = replace(CONFIG, eval=replace(CONFIG.eval, prompts=15))
    data = data_named(str(write(tmp_path / "q.jsonl", 20, repeat=3)), config)
    found = questions_of(data, config)
    assert [one.question for one in found.problems] == [f"What is {i}?" for i in range(15)]
    counts = found.data(held_out=4)
    assert (counts["asked"], counts["not_asked"], counts["held_out"]) == (11, 5, 4)
    assert (counts["cleaning"]["read"], counts["cleaning"]["duplicates"], counts["cleaning"]["kept"]) == (23, 3, 20)


def test_names_of_data():
    assert data_named("suite", CONFIG).source == "suite"
    gym = data_named("gym:basic_arithmetic", CONFIG)
    assert (gym.source, gym.files, gym.limit) == ("gym", ("basic_arithmetic",), 30)
    columns = replace(DataConfig().fields, prompt="question")
    config = replace(CONFIG, test=DataConfig("jsonl", ("other.jsonl",), fields=columns))
    named = data_named("mine.jsonl", config)
    assert (named.files, named.fields.prompt) == (("mine.jsonl",), "question")


def test_without_being_asked_to_calibrate_every_question_is_in_the_report(model, tmp_path, capsys):
    before = (model / "lhrm.json").read_bytes()
    report = run_evaluation(model, None, str(write(tmp_path / "q.jsonl", 12, 1)), tmp_path / "out", CONFIG)
    assert "12 of 12 prompts" in report
    assert "read 13, duplicates 1" in report
    assert "read 13, duplicates 1" in capsys.readouterr().err
    assert "held out" not in report
    assert (model / "lhrm.json").read_bytes() == before


def test_calibrating_holds_a_quarter_out_and_says_so(model, tmp_path, capsys):
    report = run_evaluation(
        model, None, str(write(tmp_path / "q.jsonl", 24)), tmp_path / "out", CONFIG, calibrating=True
    )
    asked = row_log(tmp_path / "out" / "rows.jsonl").read()
    held_out = row_log(tmp_path / "out" / "calibration" / "rows.jsonl").read()
    assert len(asked) + len(held_out) == 24
    assert 1 <= len(held_out) <= 12
    assert not {row.key for row in asked} & {row.key for row in held_out}
    assert f"held out for the savings calibration {len(held_out)}." in report
    # Fewer than 30 questions calibrate nothing, and the manifest stays.
    assert f"no calibration: {len(held_out)} questions held out" in capsys.readouterr().err
    assert Manifest.load(model).savings_calibration is None
    with pytest.raises(ConfigError, match=r"prompts = |problems = "):
        run_evaluation(model, None, str(tmp_path / "q.jsonl"), tmp_path / "out", CONFIG)


def test_a_calibration_is_written_into_the_checkpoint(model, tmp_path, monkeypatch):
    saves = ModeSamples((1.0,), (40,), (False,), (False,)), ModeSamples((1.0,), (4,), (False,), (False,))
    rows = [Row("all", 0, False, "bare", f"k{i}", 20, 0.1, 1.0, *saves) for i in range(30)]
    monkeypatch.setattr("lhrm_train.evaluation._measure_held_out", lambda *_: rows)
    run_evaluation(model, None, str(write(tmp_path / "q.jsonl", 12)), tmp_path / "out", CONFIG, calibrating=True)
    manifest = Manifest.load(model)
    assert manifest.savings_calibration == calibrate(rows)
    assert manifest.savings_calibration.lookup(0.1, 20).saving_mean == 36.0
    assert manifest.evaluation == {}


def test_a_server_has_no_manifest_to_calibrate(tmp_path):
    with pytest.raises(ConfigError, match=r"--calibrate .* needs --model"):
        run_evaluation(None, "http://127.0.0.1:1", "suite", tmp_path, CONFIG, calibrating=True)


def test_a_directory_is_of_one_kind_of_evaluation(tmp_path):
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(ConfigError, match="is of an evaluation on other data: use another directory"):
        run_evaluation(tmp_path / "model", None, "suite", tmp_path, CONFIG)


def test_nothing_left_to_ask(tmp_path):
    name = str(write(tmp_path / "q.jsonl", 3))
    config = replace(CONFIG, test=DataConfig("jsonl", (name,), decontaminate=(name,)))
    with pytest.raises(ConfigError, match=r"q\.jsonl: no question is left to ask"):
        evaluate_questions(Scripted(), questions_of(config.test, config), tmp_path / "out", config)
