"""What measures the load test's own need of processor: a server that plays a recording, and the run against it."""

from bench.driver_share import main, measure


def test_every_token_of_the_recording_is_counted(tmp_path):
    summary = measure(tmp_path, streams=4, requests=12, tokens=6, gap_ms=3.0)
    arm, (step,) = summary.arms["plain"], summary.steps
    assert (arm.requests, arm.errors, summary.warmups) == (12, 0, 4)
    assert (arm.completion.mean, arm.completion.p95) == (6, 6)
    assert arm.latency_ms["first_answer"][0] >= 3
    assert arm.latency_ms["total"][0] >= 18
    assert step.throughput > 0
    assert 0 < summary.driver.cpu_share < 1


def test_the_line(tmp_path, capsys):
    assert main(["--out", str(tmp_path), "--streams", "2", "--requests", "6", "--tokens", "3", "--gap-ms", "2"]) == 0
    values = dict(pair.split("=") for pair in capsys.readouterr().out.splitlines()[-1].split(" "))
    assert (values["streams"], values["errors"]) == ("2", "0")
    assert float(values["driver_cpu_share"]) > 0
