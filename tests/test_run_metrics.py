from lhrm_train.metrics import MetricsLog, read_metrics


def test_rows_of_steps_that_are_taken_again_are_dropped(tmp_path):
    with MetricsLog(tmp_path, 0) as log:
        for step in (1, 2, 3):
            log.write({"step": step, "loss": 1 / step})
    assert [row["loss"] for row in read_metrics(tmp_path)] == [1.0, 0.5, 0.33333]
    with MetricsLog(tmp_path, 1) as log:
        log.write({"step": 2, "loss": 7.0})
    assert [(row["step"], row["loss"]) for row in read_metrics(tmp_path)] == [(1, 1.0), (2, 7.0)]
    assert list((tmp_path / "tensorboard").iterdir())


def test_an_inactive_log_writes_nothing(tmp_path):
    with MetricsLog(tmp_path / "run", 0, active=False) as log:
        log.write({"step": 1, "loss": 1.0})
    assert not (tmp_path / "run").exists()
    assert read_metrics(tmp_path / "run") == []
