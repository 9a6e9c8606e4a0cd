"""A run goes on with the settings, the HFT checkpoint and the data it began with, and with nothing else."""

import json
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from lhrm_train.config import ConfigError, DataConfig, HGPOConfig, RunConfig
from lhrm_train.digest import data_digest, digest_of, weights_digest
from lhrm_train.format import FormatError
from lhrm_train.run_record import RunRecord, environments_of, read_record
from lhrm_train.stop import InterruptedRunError
from tests.checkpoints import tiny_checkpoint


def jsonl(path, text="one"):
    path.write_text(text)
    return DataConfig(source="jsonl", files=(str(path),))


def begin(out, stage):
    (out / stage).mkdir()
    (out / stage / "metrics.jsonl").touch()


def test_settings_that_training_reads_may_not_change(tmp_path):
    RunRecord(tmp_path, RunConfig(), None)
    RunRecord(tmp_path, RunConfig(threads=1, stages=("eval",)), None)
    begin(tmp_path, "hgpo")
    with pytest.raises(ConfigError, match=r"hgpo\.lr = 0\.0002, not 0\.5: use another --out"):
        RunRecord(tmp_path, RunConfig(hgpo=HGPOConfig(lr=0.5)), None)
    assert read_record(tmp_path)["config"]["hgpo"]["lr"] == 0.0002


def test_settings_of_hgpo_may_change_until_it_begins(tmp_path):
    RunRecord(tmp_path, RunConfig(), None)
    begin(tmp_path, "hft")
    RunRecord(tmp_path, RunConfig(hgpo=HGPOConfig(lr=0.5), hgpo_seed=3), None)
    assert read_record(tmp_path)["config"]["hgpo"]["lr"] == 0.5
    with pytest.raises(ConfigError, match=r"hft_seed = 0, not 1"):
        RunRecord(tmp_path, RunConfig(hft_seed=1), None)
    begin(tmp_path, "hgpo")
    with pytest.raises(ConfigError, match=r"hgpo_seed = 3, not 0|hgpo\.lr"):
        RunRecord(tmp_path, RunConfig(), None)


def test_a_run_that_went_on_under_other_versions_names_them_all(tmp_path, monkeypatch):
    for commit in ("one", "two", "two", "three"):
        here = {"commit": commit, "torch": "2"}
        monkeypatch.setattr("lhrm_train.run_record._environment", lambda here=here: here)
        RunRecord(tmp_path, RunConfig(), None)
    assert read_record(tmp_path)["environment"]["commit"] == "three"
    assert environments_of(read_record(tmp_path)) == {"commit": "one, then two, then three", "torch": "2"}


class KilledError(Exception):
    pass


def test_seconds_of_a_stage_add_up_over_interruptions(tmp_path, monkeypatch):
    def stopped():
        raise InterruptedRunError

    times = iter([10.0, 12.5, 100.0, 101.0, 200.0, 204.0])
    # In place of the module in this one: other threads of the process ask the real one.
    monkeypatch.setattr("lhrm_train.run_record.time", SimpleNamespace(monotonic=lambda: next(times)))
    with pytest.raises(InterruptedRunError):
        RunRecord(tmp_path, RunConfig(), None).run("hft", stopped)
    RunRecord(tmp_path, RunConfig(), None).run("hft", lambda: None)
    assert read_record(tmp_path)["seconds"] == {"hft": 3.5}
    with pytest.raises(ZeroDivisionError):  # what it did until then may have been saved
        RunRecord(tmp_path, RunConfig(), None).run("hgpo", lambda: 1 / 0)
    assert read_record(tmp_path)["seconds"] == {"hft": 3.5, "hgpo": 4.0}


def test_a_killed_stage_has_its_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr("lhrm_train.run_record.NOTE_EVERY_S", 0.01)

    def killed_later():
        deadline = time.monotonic() + 30
        while read_record(tmp_path)["seconds"].get("hft", 0) < 0.2 and time.monotonic() < deadline:
            time.sleep(0.02)
        raise KilledError(read_record(tmp_path)["seconds"]["hft"])  # what a killed process leaves behind

    with pytest.raises(KilledError) as left:
        RunRecord(tmp_path, RunConfig(), None).run("hft", killed_later)
    assert 0.2 <= left.value.args[0] < 30


def test_another_hft_checkpoint_is_refused(tmp_path):
    one, two = tiny_checkpoint(tmp_path / "one"), tiny_checkpoint(tmp_path / "two", weight=1.0)
    RunRecord(tmp_path / "run", RunConfig(), one)
    record = read_record(tmp_path / "run")
    assert record["hft"] == {"name": "tiny", "weights": weights_digest(one)}
    assert str(tmp_path) not in json.dumps(record["hft"])
    RunRecord(tmp_path / "run", RunConfig(), tiny_checkpoint(tmp_path / "copy"))
    for other in (two, None):
        with pytest.raises(ConfigError, match=r"was made with --hft tiny, weights .*: use another --out"):
            RunRecord(tmp_path / "run", RunConfig(), other)
    RunRecord(tmp_path / "plain", RunConfig(), None)
    with pytest.raises(ConfigError, match="was made without --hft, not with --hft tiny"):
        RunRecord(tmp_path / "plain", RunConfig(), one)


def test_an_hft_checkpoint_that_is_none_leaves_no_run(tmp_path):
    with pytest.raises(FormatError, match="not an LHRM checkpoint"):
        RunRecord(tmp_path / "run", RunConfig(), tmp_path)
    assert not (tmp_path / "run").exists()


def test_other_content_of_a_data_file_is_refused_once_its_stage_has_begun(tmp_path):
    config = RunConfig(data=jsonl(tmp_path / "hft.jsonl"), prompts=jsonl(tmp_path / "hgpo.jsonl"))
    out = tmp_path / "run"
    RunRecord(out, config, None)
    (tmp_path / "hft.jsonl").write_text("a typo mended before anything was learnt")
    RunRecord(out, config, None)
    begin(out, "hft")
    (tmp_path / "hgpo.jsonl").write_text("HGPO has not begun")
    RunRecord(out, config, None)
    (tmp_path / "hft.jsonl").write_text("too late")
    with pytest.raises(ConfigError, match=r"other content of .*hft\.jsonl: use another --out"):
        RunRecord(out, config, None)
    (tmp_path / "hft.jsonl").unlink()  # nothing reads it any more
    RunRecord(out, config, None)
    (tmp_path / "hft.jsonl").write_text("still too late")
    with pytest.raises(ConfigError, match=r"hft\.jsonl"):
        RunRecord(out, config, None)


def test_files_to_keep_out_of_the_data_are_data(tmp_path):
    test = tmp_path / "test.jsonl"
    test.write_text("one")
    config = RunConfig(data=replace(jsonl(tmp_path / "hft.jsonl"), decontaminate=(str(test),)))
    RunRecord(tmp_path / "run", config, None)
    begin(tmp_path / "run", "hft")
    test.write_text("two")
    with pytest.raises(ConfigError, match=r"test\.jsonl"):
        RunRecord(tmp_path / "run", config, None)


def test_another_process_waits_and_touches_nothing(tmp_path, monkeypatch):
    waited = []

    class Second:
        is_main_process = False

        def wait_for_everyone(self):
            waited.append(True)

    monkeypatch.setattr("lhrm_train.run_record.accelerator", Second)
    (tmp_path / "run.json").write_text("{half a reco")
    done = []
    RunRecord(tmp_path, RunConfig(), None).run("hft", lambda: done.append(True))
    assert (waited, done, (tmp_path / "run.json").read_text()) == ([True], [True], "{half a reco")


def test_digests_depend_on_names_and_bytes_alone(tmp_path):
    for name, text in (("a", "x"), ("b", "y"), ("c", "x")):
        (tmp_path / name).write_text(text)
    a, b, c = (tmp_path / name for name in "abc")
    found = [digest_of(paths) for paths in ([a], [c], [a, b], [b, a], [b])]
    assert len(set(found)) == 5
    assert data_digest(str(a)) == digest_of([a])
    assert data_digest(str(tmp_path)) == digest_of([a, b, c])
    assert data_digest("openai/gsm8k:main") is None
