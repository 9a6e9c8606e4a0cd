"""Whole runs of the load test against a gateway on a real socket whose answers, and so whose savings, are known."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise

import pytest
from conftest import NANO
from fake_gateway import MODEL, fake_gateway, scripted
from lhrm_loadtest.__main__ import main
from lhrm_loadtest.rows import read_rows
from lhrm_loadtest.run_info import read_run, write_run
from lhrm_loadtest.summary import summarise
from lhrm_server.engine_fake import Script

from lhrm_train.format import ChatTokenizer, SavingsBin, SavingsCalibration

ARMS = ("auto", "think", "no_think")


def _answers(tokenizer):
    """Answer by the word in the question: easy ones at once, hard ones right only after reasoning."""
    easy = scripted(tokenizer, "it is easy so this reasoning is a waste of tokens", "right", p_think=0.1)
    hard = scripted(tokenizer, "it is hard", "right", p_think=0.9)
    guessed = scripted(tokenizer, "", "wrong").no_think_ids
    hard = replace(hard, no_think_ids=guessed)

    def script(prompt_ids) -> Script:
        question = tokenizer.decode(prompt_ids)
        if "broken" in question:
            return Script(fail_at=2)
        return hard if "hard" in question else easy

    return script


def _prompt_file(tmp_path, *questions: str, **columns: list):
    path = tmp_path / "prompts.jsonl"
    rows = [{"prompt": q, "answer": "right", "task": "word", "level": q.split()[0]} for q in questions]
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def _run(url, prompts, out, *more: str) -> int:
    return main(["run", "--base-url", url, "--prompts", prompts, "--out", str(out), *more])


@pytest.fixture(scope="module")
def gateway(loop_thread, nano_tokenizer):
    with fake_gateway(loop_thread, nano_tokenizer, _answers(nano_tokenizer)) as (url, engine):
        yield url, engine


def test_a_run_measures_the_known_saving(gateway, nano_tokenizer, tmp_path, capsys):
    url, engine = gateway
    before = len(engine.requests)
    prompts = _prompt_file(tmp_path, *(f"easy {i}" for i in range(6)), *(f"hard {i}" for i in range(3)))
    out = tmp_path / "run"
    assert _run(url + "/v1", prompts, out) == 0

    rows = [row for row in read_rows(out) if not row.warmup]
    assert len(rows) == 27
    # One probe in each arm, two prompts of warm-up, nine measured; each auto request also makes a decide call.
    assert len(engine.requests) - before == 4 * (1 + 2 + 9)
    script = _answers(nano_tokenizer)
    easy, hard = (script(tuple(nano_tokenizer.encode_text(word))) for word in ("easy", "hard"))
    summary = summarise(read_rows(out))
    saved, auto = len(easy.think_ids) - len(easy.no_think_ids), summary.differences["auto"]
    assert auto.pairs == 9
    assert auto.saved.value == pytest.approx(6 * saved / 9)
    always = 6 * len(easy.think_ids) + 3 * len(hard.think_ids)
    assert auto.saved_pct.value == pytest.approx(100 * 6 * saved / always)
    # The script decides as an oracle would.
    assert summary.oracle.ratio.value == pytest.approx(auto.ratio.value)
    assert (summary.oracle.accuracy, summary.arms["no_think"].accuracy) == (1, pytest.approx(2 / 3))
    assert summary.arms["auto"].think_rate == pytest.approx(1 / 3)
    assert summary.arms["think"].sources == {"request": 9}
    assert summary.arms["auto"].accuracy == summary.arms["think"].accuracy == 1
    assert [(level.name, level.think_rate["auto"]) for level in summary.levels] == [("easy", 0), ("hard", 1)]
    for row in rows:
        assert 0 <= row.scheduled_ms <= row.sent_ms < row.first_token_ms <= row.first_answer_ms <= row.end_ms

    last = capsys.readouterr().out.splitlines()[-1]
    values = dict(pair.split("=") for pair in last.split(" "))
    assert (values["pairs"], values["errors"], values["think_rate_auto"]) == ("9", "0", "0.3333")
    plots = {path.name for path in (out / "plots").iterdir()}
    assert plots == {"tokens.png", "curve.png", "difficulty.png", "latency.png"}


def test_counts_are_those_of_the_gateway(gateway, tmp_path):
    url, engine = gateway
    before = len(engine.requests), engine.emitted_tokens
    prompts = _prompt_file(tmp_path, *(f"easy {i}" for i in range(5)), "hard 1")
    assert _run(url, prompts, tmp_path / "run", "--warmup", "0", "--arms", "think,auto") == 0
    rows = read_rows(tmp_path / "run")
    probes = 2
    requests, emitted = len(engine.requests) - before[0], engine.emitted_tokens - before[1]
    assert requests == len(rows) + probes + sum(row.reply.decide_tokens for row in rows) + 1  # the probe's decision
    counted = sum(row.reply.completion_tokens + row.reply.decide_tokens for row in rows)
    assert counted < emitted < counted + 60  # the probes


def test_the_server_estimate_is_held_against_the_truth(loop_thread, nano_tokenizer, tmp_path):
    script = _answers(nano_tokenizer)
    easy = script(tuple(nano_tokenizer.encode_text("easy")))
    always, offset = len(easy.think_ids), 3
    low, high = always - 1, always + offset + 5
    known = SavingsBin((0, 1), (0, 400), 50, always + offset, low, high, 0, 0, 0, 0)
    manifest = replace(nano_tokenizer.manifest, savings_calibration=SavingsCalibration(0.9, 50, (known,)))
    tokenizer = ChatTokenizer((NANO / "tokenizer.json").read_text(encoding="utf-8"), manifest)
    prompts, out = _prompt_file(tmp_path, *(f"easy {i}" for i in range(4)), "hard 0"), tmp_path / "run"
    with fake_gateway(loop_thread, tokenizer, script) as (url, _):
        assert _run(url, prompts, out) == 0
    online = summarise(read_rows(out)).online
    assert (online.pairs, online.no_think, online.intervals, online.covered) == (5, 4, 4, 4)
    assert online.no_think_bias.value == offset
    assert online.bias.value == pytest.approx(offset * 4 / 5)
    assert online.confidence == 0.9


def test_the_report_comes_from_the_rows_again(gateway, tmp_path, capsys):
    prompts, out = _prompt_file(tmp_path, "easy 1", "hard 1"), tmp_path / "run"
    assert _run(gateway[0], prompts, out, "--note", "n1", "--slo", "total<=5000", "--price-completion", "2") == 0
    first, made = capsys.readouterr().out.splitlines()[-1], {}
    for path in (out / "report.md", out / "report.html", *(out / "plots").iterdir()):
        made[path] = path.read_bytes()
        path.unlink()
    assert main(["report", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == first
    assert {path: path.read_bytes() for path in made} == made
    run = read_run(out)
    assert (run.prompts, run.note, run.mix) == (2, "n1", "word 100 %")
    assert run.settings.arms[0].model == ""
    assert run.servers[gateway[0]]["version"]
    report = (out / "report.md").read_text()
    assert "- command: lhrm-loadtest run --base-url" in report
    assert "total<=5000" in report
    (out / "run.json").unlink()
    # The rows alone tell the same, once the objective is named.
    assert main(["report", str(out), "--slo", "total<=5000"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == first


def test_failed_requests_are_rows_and_their_pairs_are_left_out(gateway, tmp_path, capsys):
    prompts, out = _prompt_file(tmp_path, "easy 1", "broken 1"), tmp_path / "run"
    assert _run(gateway[0], prompts, out, "--warmup", "0") == 0
    failed = [row for row in read_rows(out) if row.error]
    assert {(row.prompt, row.arm) for row in failed} == {("2", arm) for arm in ARMS}
    assert all(row.reply is None and row.request_id and "engine_error" in row.error for row in failed)
    assert "pairs=1 errors=3" in capsys.readouterr().out


def test_a_cap_that_thinking_eats_shows_as_missing_answers(gateway, tmp_path):
    prompts, out = _prompt_file(tmp_path, "easy 1", "easy 2"), tmp_path / "run"
    assert _run(gateway[0], prompts, out, "--max-tokens", "4") == 0
    arms = summarise(read_rows(out)).arms
    assert [arms[arm].without_answer for arm in ARMS] == [0, 2, 0]
    assert arms["think"].ended_by == {"length": 2}
    assert arms["think"].completion.mean == 4
    assert "| ended without an answer | 0 | 2 | 0 |" in (out / "report.md").read_text()


def test_thresholds_and_other_endpoints_are_arms(gateway, loop_thread, nano_tokenizer, tmp_path):
    prompts, out = _prompt_file(tmp_path, "easy 1", "hard 1"), tmp_path / "run"
    always = scripted(nano_tokenizer, "another model that always thinks", "right", p_think=1.0)
    with fake_gateway(loop_thread, nano_tokenizer, always, model_name="r1") as (other, _):
        more = ("--arms", "auto,auto@0.05,think", "--arm", f"r1,url={other},mode=plain", "--baseline", "r1")
        assert _run(gateway[0], prompts, out, *more) == 0
    summary = summarise(read_rows(out), "r1")
    assert {name: arm.think_rate for name, arm in summary.arms.items()} == {
        "auto": 0.5,
        "auto@0.05": 1,
        "think": 1,
        "r1": 1,
    }
    assert {row.arm: row.model for row in read_rows(out)} == {
        **dict.fromkeys(("auto", "auto@0.05", "think"), MODEL),
        "r1": "r1",
    }
    assert summary.differences["auto"].ratio.value < 1
    assert read_run(out).settings.baseline == "r1"


@pytest.mark.parametrize("limit", [1, 3])
def test_a_closed_loop_has_as_many_requests_at_a_time(loop_thread, nano_tokenizer, tmp_path, limit):
    prompts = _prompt_file(tmp_path, *(f"easy {i}" for i in range(8)))
    with fake_gateway(loop_thread, nano_tokenizer, Script(delay_s=0.002)) as (url, engine):
        seen, plain = [], engine.script
        engine.script = lambda _: (seen.append(engine.active), plain)[1]
        assert _run(url, prompts, tmp_path / "run", "--concurrency", str(limit)) == 0
        # The script is asked before its own request is counted.
        assert max(seen) + 1 == limit


def test_an_open_loop_does_not_wait_and_counts_from_the_scheduled_arrival(loop_thread, nano_tokenizer, tmp_path):
    prompts = _prompt_file(tmp_path, *(f"easy {i}" for i in range(12)))
    with fake_gateway(loop_thread, nano_tokenizer, Script(first_delay_s=0.4)) as (url, engine):
        seen, plain = [], engine.script
        engine.script = lambda _: (seen.append(engine.active), plain)[1]
        out = tmp_path / "run"
        assert _run(url, prompts, out, "--rate", "60", "--arms", "think", "--warmup", "0") == 0
        assert max(seen) >= 5
    rows = read_rows(out)
    due = [row.scheduled_ms for row in rows]
    assert due == sorted(due)
    assert due[0] == 0 < min(after - before for before, after in pairwise(due))
    assert all(row.sent_ms >= row.scheduled_ms for row in rows)
    summary = summarise(rows)
    assert summary.arms["think"].latency_ms["first_token"][0] > 400
    assert summary.driver.late_p99_ms >= 0


def test_a_stalled_driver_does_not_hide_the_wait(loop_thread, nano_tokenizer, tmp_path, monkeypatch):
    # Scoring the first answer blocks the whole load test for .3 s: requests due meanwhile leave late.
    def slow(prompt, answer):
        time.sleep(0.3)
        return 1.0

    monkeypatch.setattr("lhrm_loadtest.runner.score", slow)
    prompts = _prompt_file(tmp_path, *(f"easy {i}" for i in range(4)), arrival_s=[0, 0.1, 0.2, 0.25])
    with fake_gateway(loop_thread, nano_tokenizer, Script()) as (url, _):
        assert _run(url, prompts, tmp_path / "run", "--trace", "--arms", "think", "--warmup", "0") == 0
    rows = read_rows(tmp_path / "run")
    assert [row.scheduled_ms for row in rows] == [0, 100, 200, 250]
    late = [row.sent_ms - row.scheduled_ms for row in rows]
    assert max(late) > 50
    slowest = rows[late.index(max(late))]
    assert summarise(rows).arms["think"].latency_ms["first_token"][3] > slowest.first_token_ms - slowest.sent_ms


def test_a_trace_is_replayed_to_each_arm(gateway, tmp_path):
    prompts = _prompt_file(tmp_path, "easy 1", "hard 2", "easy 3", arrival_s=[100.2, 100.0, 100.3])
    out = tmp_path / "run"
    assert _run(gateway[0], prompts, out, "--trace", "--warmup", "0") == 0
    for arm in ARMS:
        rows = [row for row in read_rows(out) if row.arm == arm]
        assert [(row.prompt, row.scheduled_ms) for row in rows] == [("2", 0), ("1", 200), ("3", 300)]
        assert {(row.concurrency, row.rate) for row in rows} == {(None, None)}


def test_a_ramp_shows_every_load_and_the_best(loop_thread, nano_tokenizer, tmp_path):
    prompts, out = _prompt_file(tmp_path, *(f"easy {i}" for i in range(6))), tmp_path / "run"
    script = replace(_answers(nano_tokenizer)(tuple(nano_tokenizer.encode_text("easy"))), delay_s=0.002)
    more = ("--concurrency", "1,2,4", "--per-step", "8", "--arms", "auto,think", "--slo", "total<=2000")
    with fake_gateway(loop_thread, nano_tokenizer, script) as (url, _):
        assert _run(url, prompts, out, *more) == 0
    summary = read_summary(out)
    assert [(step.load.concurrency, step.requests) for step in summary.steps if step.arm == "auto"] == [
        (1, 8),
        (2, 8),
        (4, 16),
    ]
    assert summary.knees.keys() == {"auto", "think"}
    assert [ratio.share for ratio in summary.goodput] == [0, 0.9]
    assert all(ratio.ratio > 1 for ratio in summary.goodput)
    assert (out / "plots" / "load.png").is_file()
    assert "(knee)" in (out / "report.md").read_text()


def read_summary(out):
    from lhrm_loadtest.report import read_report

    return read_report(out).summary


def test_runs_of_the_same_prompts_can_be_compared(gateway, tmp_path, capsys):
    for name, questions in (("a", ["easy 1", "hard 1"]), ("b", ["easy 1", "hard 1"]), ("c", ["easy 1", "easy 2"])):
        assert _run(gateway[0], _prompt_file(tmp_path, *questions), tmp_path / name) == 0
    lenient = ("--limit", "first_answer_p95_ms=10000%", "--limit", "total_p95_ms=10000%")
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), *lenient]) == 0
    assert "different prompts" not in capsys.readouterr().err
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "c"), *lenient]) == 3
    captured = capsys.readouterr()
    assert "the runs asked different prompts" in captured.err
    assert "think.completion_tokens" in captured.out.splitlines()[-1]


def test_an_existing_run_is_not_overwritten(gateway, tmp_path, capsys):
    prompts, out = _prompt_file(tmp_path, "easy 1"), tmp_path / "run"
    assert _run(gateway[0], prompts, out) == 0
    rows = (out / "rows.jsonl").read_text()
    capsys.readouterr()
    assert _run(gateway[0], prompts, out) == 1
    assert "choose another --out" in capsys.readouterr().err
    assert (out / "rows.jsonl").read_text() == rows


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--n", "99"], "n = 99"),
        (["--model", "unknown"], "404 model_not_found"),
        (["--base-url", "http://127.0.0.1:9"], "could not reach http://127.0.0.1:9/v1/models"),
        (["--arms", "auto@7"], "threshold = '7'"),
        (["--prompts", "/nowhere.jsonl"], "cannot read prompts"),
        (["--concurrency", "0"], "concurrency = 0"),
        (["--rate", "-1"], "rate = -1.0"),
        (["--trace"], "has no arrival_s"),
        (["--slo", "total<=0"], "slo = 'total<=0'"),
        (["--temperature", "-1"], "temperature = -1.0"),
        (["--max-tokens", "100000"], "400 context_length_exceeded"),
        (["--arm", 'x,mode=think,extra={"thinking": {"type": "disabled"}}'], "asked for think, the reply is no_think"),
    ],
)
def test_a_run_that_cannot_start_says_why(gateway, tmp_path, capsys, args, named):
    base = ["run", "--base-url", gateway[0], "--out", str(tmp_path / "run")]
    assert main([*base, *args]) == 1
    captured = capsys.readouterr()
    assert named in captured.err.replace("\n", " ")
    assert captured.out == ""
    assert not (tmp_path / "run" / "rows.jsonl").exists()


def test_command_in_a_process_of_its_own(gateway, tmp_path):
    command = [sys.executable, "-m", "lhrm_loadtest", "run", "--base-url", gateway[0], "--n", "3"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "run")], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("pairs=3 errors=0 ")
    assert "Against think" in done.stdout
    assert re.search(r"15/15.* auto [0-9.]+ tok [0-9.]+ % \| think", done.stderr)


def test_an_interrupted_run_keeps_its_rows_and_goes_on(loop_thread, nano_tokenizer, tmp_path, capsys):
    plain, out, hangs = _answers(nano_tokenizer), tmp_path / "run", [True]

    def script(prompt_ids) -> Script:
        hang = hangs[0] and "hang" in nano_tokenizer.decode(prompt_ids)
        return Script(hang_at=0) if hang else plain(prompt_ids)

    prompts = _prompt_file(tmp_path, *(f"easy {i}" for i in range(3)), "hang")
    command = [sys.executable, "-m", "lhrm_loadtest", "run", "--prompts", prompts, "--out", str(out), "--warmup", "0"]
    with fake_gateway(loop_thread, nano_tokenizer, script) as (url, engine):
        process = subprocess.Popen(
            [*command, "--base-url", url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A test run started in the background ignores SIGINT, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        rows, deadline = out / "rows.jsonl", time.monotonic() + 60
        while not (rows.exists() and rows.read_text().count("\n") == 9 and engine.active):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
        assert (process.returncode, stdout) == (130, b"")
        assert b"resume" in stderr
        assert b"Traceback" not in stderr
        kept = read_rows(out)
        assert len(kept) == 9

        with rows.open("a") as file:
            file.write('{"position": 3, "cut')  # as a kill leaves it
        hangs[0] = False
        assert main(["resume", str(out)]) == 0
        done = len(engine.requests)
        assert main(["resume", str(out)]) == 0
        assert len(engine.requests) == done
    after = read_rows(out)
    assert [row for row in after if row.session == 0] == kept
    assert sorted(row.position for row in after) == list(range(12))
    assert {row.prompt for row in after if row.session == 1} == {"4"}
    assert len(read_run(out).sessions) == 2
    assert capsys.readouterr().out.splitlines()[-1].startswith("pairs=4 ")


def test_a_server_that_goes_away_ends_the_run_and_can_come_back(loop_thread, nano_tokenizer, tmp_path, capsys):
    prompts, out = _prompt_file(tmp_path, *(f"easy {i}" for i in range(80))), tmp_path / "run"
    plain, gone = _answers(nano_tokenizer), threading.Event()
    asked = []

    def script(prompt_ids) -> Script:
        asked.append(prompt_ids)
        if len(asked) == 9:
            gone.set()
        return plain(prompt_ids)

    with ExitStack() as first:
        url, _ = first.enter_context(fake_gateway(loop_thread, nano_tokenizer, script))
        with ThreadPoolExecutor(1) as pool:
            more = ("--arms", "think", "--warmup", "0", "--concurrency", "1")
            running = pool.submit(_run, url, prompts, out, *more)
            assert gone.wait(30)
            first.close()
            assert running.result(60) == 1
    assert "50 requests in a row did not reach" in capsys.readouterr().err
    rows = read_rows(out)
    assert 50 <= sum(row.error is not None for row in rows) < len(rows) < 80
    with fake_gateway(loop_thread, nano_tokenizer, plain) as (url, _):
        info = read_run(out)
        moved = info.settings.arms[0].model_copy(update={"url": url})
        write_run(out, info.model_copy(update={"settings": info.settings.model_copy(update={"arms": (moved,)})}))
        assert main(["resume", str(out), "--retry-errors"]) == 0
    after = read_rows(out)
    assert (len(after), {row.error for row in after}) == (80, {None})


def test_what_was_never_begun_cannot_go_on(gateway, tmp_path, capsys):
    assert main(["resume", str(tmp_path)]) == 1
    assert "no run.json" in capsys.readouterr().err
    prompts, out = _prompt_file(tmp_path, "easy 1"), tmp_path / "run"
    assert _run(gateway[0], prompts, out) == 0
    (out / "prompts.jsonl").write_text('{"prompt": "another"}\n')
    assert main(["resume", str(out)]) == 1
    assert "is not what the run began with" in capsys.readouterr().err


def test_missing_extra_is_named(monkeypatch, capsys):
    monkeypatch.setattr("lhrm_loadtest.__main__.find_spec", lambda name: None if name == "rich" else object())
    assert main(["report", "x"]) == 1
    assert "pip install 'lhrm[loadtest]'" in capsys.readouterr().err
