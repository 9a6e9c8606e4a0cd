"""Whole runs against servers that are gone, fail, say what is no text, or change between sessions."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time

import pytest
from canned_endpoint import Canned, canned_endpoint
from lhrm_loadtest import caveats, session
from lhrm_loadtest import driver as driver_module
from lhrm_loadtest.__main__ import main
from lhrm_loadtest.arms import Arm
from lhrm_loadtest.driver import Answered, Driver, Sampling
from lhrm_loadtest.errors import LoadTestError
from lhrm_loadtest.plan import Design, Job, Step, plan
from lhrm_loadtest.prompts import Prompt
from lhrm_loadtest.rows import read_rows
from lhrm_loadtest.run_info import read_run
from lhrm_loadtest.runner import run
from loadtest_rows import reply

PROMPTS = [Prompt(id=str(i), messages=[{"role": "user", "content": f"q{i}"}]) for i in range(20)]
DEAD, ALIVE = "http://dead", "http://alive"


@pytest.fixture
def endpoint():
    with canned_endpoint(Canned()) as canned:
        yield canned


def run_against(endpoint, tmp_path, *more: str, prompts: int = 3) -> int:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"q{i}", "answer": "right"}) + "\n" for i in range(prompts)))
    out = ["--out", str(tmp_path / "run"), "--warmup", "0"]
    arms = [] if "--arms" in more else ["--arms", "plain"]
    return main(["run", "--base-url", endpoint.url, "--prompts", str(path), *out, *arms, *more])


class HalfDead(Driver):
    """Reaches every server but one."""

    async def ask(self, job: Job) -> Answered:
        await asyncio.sleep(0.001)
        if self._arms[job.arm].url == DEAD:
            return Answered(0.0, None, None, 1.0, None, None, "gone", unreachable=True)
        return Answered(0.0, 1.0, 1.0, 1.0, None, reply("think", 9), None)


@pytest.mark.parametrize(("layout", "rows"), [("blocks", range(90, 111)), ("mixed", range(98, 102))])
async def test_a_server_that_is_gone_ends_the_run_though_its_blocks_are_short(layout, rows):
    arms = [Arm(name="a", mode="plain", url=DEAD, model="m"), Arm(name="b", mode="plain", url=ALIVE, model="m")]
    steps = tuple(Step(concurrency=1, requests=20) for _ in range(8))
    blocks = plan(PROMPTS, Design(("a", "b"), steps, layout, repeats=1, warmup=0, seed=0))
    found = []
    with pytest.raises(LoadTestError, match=f"arm 'a': 50 requests in a row did not reach {DEAD}"):
        await run(HalfDead({arm.name: arm for arm in arms}, Sampling()), blocks, arms, 0, found.append)
    assert sum(row.error is not None for row in found) == 50
    assert len(found) in rows


async def test_a_server_that_takes_no_connection_is_not_reached(monkeypatch):
    monkeypatch.setattr(driver_module, "CONNECT_S", 0.2)
    with socket.socket() as full, socket.socket() as first, socket.socket() as second:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        arm = Arm(name="a", mode="plain", url=f"http://127.0.0.1:{full.getsockname()[1]}", model="m")
        async with Driver({"a": arm}, Sampling()) as driver:
            answered = await driver.ask(Job(0, 0, 0, 0, False, "a", PROMPTS[0], 0, None))
    assert "ConnectionTimeoutError" in answered.error
    assert answered.unreachable


@pytest.mark.parametrize("arms", ["plain", "auto,plain"])
def test_a_run_in_which_every_request_failed_has_no_pairs_and_fails(endpoint, tmp_path, capsys, monkeypatch, arms):
    async def no_probe(*args):
        endpoint.status = 500

    monkeypatch.setattr("lhrm_loadtest.session.probe", no_probe)
    assert run_against(endpoint, tmp_path, "--arms", arms) == 1
    count = 3 * len(arms.split(","))
    assert f"pairs=0 errors={count}" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("contents", "answer"),
    [
        (["hi \ud83d", "\ude00"], "hi \U0001f600"),
        (["hi \ud83d"], "hi \ufffd"),
        (["\ude00\ud83d", "hi"], "\ufffd\ufffdhi"),
    ],
)
def test_halves_of_surrogate_pairs_are_joined_or_replaced(endpoint, tmp_path, contents, answer):
    endpoint.contents = contents
    assert run_against(endpoint, tmp_path) == 0
    assert [row.reply.answer for row in read_rows(tmp_path / "run")] == [answer] * 3


def test_other_text_that_cannot_be_written_ends_no_run(endpoint, tmp_path, monkeypatch):
    endpoint.headers["X-Request-Id"] = "r\xff"  # no UTF-8 on the wire

    def stream(self):
        endpoint.asked += 1
        message = json.dumps({"error": {"message": "no \ud83d"}}).encode()
        return b"data: " + message + b"\n\n" if endpoint.asked > 2 else plain(self)

    plain = Canned.stream
    monkeypatch.setattr(Canned, "stream", stream)
    assert run_against(endpoint, tmp_path) == 1
    rows = read_rows(tmp_path / "run")
    assert {row.error for row in rows} == {"in the stream: no \ufffd"}
    assert {row.request_id for row in rows} == {"r\ufffd"}


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_stopped_while_it_probes_can_be_begun_again(endpoint, tmp_path, stop):
    endpoint.held = True
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "run"
    prompts.write_text('{"prompt": "q"}\n')
    command = ["run", "--base-url", endpoint.url, "--prompts", str(prompts), "--out", str(out), "--arms", "plain"]
    process = subprocess.Popen(
        [sys.executable, "-m", "lhrm_loadtest", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A test run started in the background ignores SIGINT, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not endpoint.asked:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(stop)
    _, told = process.communicate(timeout=30)
    assert (b"no run in" in told) == (stop is signal.SIGINT)
    endpoint.held = False
    assert main(command) == 0
    assert len(read_rows(out)) == 3


@pytest.mark.parametrize("empty", [True, False])
def test_a_run_that_is_killed_before_its_first_row_can_be_resumed(endpoint, tmp_path, empty):
    assert run_against(endpoint, tmp_path) == 0
    rows = tmp_path / "run" / "rows.jsonl"
    rows.unlink()
    if empty:
        rows.touch()
    assert run_against(endpoint, tmp_path) == 1
    assert main(["resume", str(tmp_path / "run")]) == 0
    assert len(read_rows(tmp_path / "run")) == 3


def test_an_empty_file_of_rows_alone_is_no_run(endpoint, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "rows.jsonl").touch()
    assert run_against(endpoint, tmp_path) == 0


def test_of_two_runs_that_begin_at_once_one_is_told_to_go(endpoint, tmp_path, monkeypatch):
    out = tmp_path / "run"
    claim = session._claim

    def claimed_while_another_begins(directory):
        claim(directory)
        monkeypatch.setattr(session, "_claim", claim)
        assert run_against(endpoint, tmp_path, prompts=2) == 0

    monkeypatch.setattr(session, "_claim", claimed_while_another_begins)
    assert run_against(endpoint, tmp_path, prompts=6) == 1
    info = read_run(out)
    assert (info.prompts, len((out / "prompts.jsonl").read_text().splitlines())) == (2, 2)
    assert main(["resume", str(out)]) == 0


def test_a_server_that_was_started_anew_elsewhere_or_told_nothing_is_no_other(endpoint, tmp_path):
    assert run_against(endpoint, tmp_path) == 0
    here = {"http://127.0.0.1:1": {"version": "1"}}
    for before in ({"http://127.0.0.1:2": {"version": "1"}}, {"http://127.0.0.1:2": {}}, {}):
        info = read_run(tmp_path / "run").model_copy(update={"servers": here, "earlier_servers": (before,)})
        assert list(caveats._servers(info)) == []
    info = info.model_copy(update={"earlier_servers": ({"http://127.0.0.1:1": {"version": "0"}},)})
    assert len(list(caveats._servers(info))) == 1


def test_sessions_that_met_another_model_and_server_are_told(endpoint, tmp_path, capsys):
    out = tmp_path / "run"
    assert run_against(endpoint, tmp_path) == 0
    rows = (out / "rows.jsonl").read_text().splitlines(keepends=True)
    (out / "rows.jsonl").write_text("".join(rows[:2]))
    endpoint.model, endpoint.version = "other", "2"
    capsys.readouterr()
    assert main(["resume", str(out)]) == 0
    told = capsys.readouterr().err
    assert "warning: The rows of plain are of different models: m, other." in told
    report = (out / "report.md").read_text()
    assert f'> **Warning:** The sessions met different servers: {{"{endpoint.url}": {{"version": "1"}}}}; ' in report
    info = read_run(out)
    assert [one[endpoint.url]["version"] for one in (*info.earlier_servers, info.servers)] == ["1", "2"]


def test_a_partial_run_and_requests_made_again_are_told(endpoint, tmp_path, capsys):
    out = tmp_path / "run"
    assert run_against(endpoint, tmp_path, prompts=6) == 0
    path = out / "rows.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0] |= {"reply": None, "error": "gone", "score": None}
    path.write_text("".join(json.dumps(one) + "\n" for one in rows[:4]))
    assert main(["report", str(out)]) == 0
    assert "> **Warning:** The run is partial: 4 of 6 planned requests were made." in (out / "report.md").read_text()
    assert "<p class=warning>The run is partial" in (out / "report.html").read_text()
    capsys.readouterr()
    assert main(["resume", str(out), "--retry-errors"]) == 0
    assert "warning: 1 request was made again in a later session (--retry-errors)" in capsys.readouterr().err
    assert "run is partial" not in (out / "report.md").read_text()
