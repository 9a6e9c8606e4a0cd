import json

from lhrm_train.metrics import MetricsLog, read_metrics


def log_of(path, *losses):
    with MetricsLog(path, 0) as log:
        for step, loss in enumerate(losses, 1):
            log.write({"step": step, "loss": loss})


def test_rows_of_steps_that_are_taken_again_are_dropped(tmp_path):
    log_of(tmp_path, 1, 1 / 2, 1 / 3)
    assert [row["loss"] for row in read_metrics(tmp_path)] == [1.0, 0.5, 0.333333]
    with MetricsLog(tmp_path, 1) as log:
        log.write({"step": 2, "loss": 7.0})
    assert [(row["step"], row["loss"]) for row in read_metrics(tmp_path)] == [(1, 1.0), (2, 7.0)]
    assert list((tmp_path / "tensorboard").iterdir())


def test_small_numbers_keep_their_digits_and_counts_all_of_them(tmp_path):
    with MetricsLog(tmp_path, 0) as log:
        log.write(
            {"step": 12_345_678, "kl": 1.23456789e-7, "tokens": 123_456_789.0, "rate": 0.1234567, "none": float("nan")}
        )
    assert read_metrics(tmp_path) == [
        {"step": 12_345_678, "kl": 1.23457e-7, "tokens": 123_456_789.0, "rate": 0.123457, "none": None}
    ]


def test_half_a_last_line_is_no_row_and_is_cut_on_resume(tmp_path):
    log_of(tmp_path, 1, 2)
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    assert [row["step"] for row in read_metrics(tmp_path)] == [1]
    with MetricsLog(tmp_path, 2) as log:
        log.write({"step": 3, "loss": 3})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 3]


def test_a_file_from_which_nothing_is_cut_is_only_appended_to(tmp_path, monkeypatch):
    log_of(tmp_path, 1, 2)
    monkeypatch.setattr("lhrm_train.atomic.os.replace", None)
    with MetricsLog(tmp_path, 2) as log:
        log.write({"step": 3, "loss": 3})
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3]


def test_an_inactive_log_writes_nothing(tmp_path):
    with MetricsLog(tmp_path / "run", 0, active=False) as log:
        log.write({"step": 1, "loss": 1.0})
    assert not (tmp_path / "run").exists()
    assert read_metrics(tmp_path / "run") == []
