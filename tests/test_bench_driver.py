"""What measures the load test's own need of processor: a server that plays a recording, and the run against it."""

import signal
import subprocess
import sys
import time

import psutil
from conftest import ROOT

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


def test_a_killed_benchmark_leaves_no_server(tmp_path):
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from bench.servers import process\n"
        "command = lambda port: [sys.executable, '-m', 'bench.canned', str(port), '1', '1']\n"
        "with process('canned', command, Path(sys.argv[1])) as (url, pid):\n"
        "    print(pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid, deadline = int(done.stdout), time.monotonic() + 20
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)
