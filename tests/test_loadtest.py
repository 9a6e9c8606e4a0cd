"""The paired load test: its plan, and whole runs against a gateway whose true savings are known."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace

import pytest
from conftest import NANO
from fake_gateway import MODEL, fake_gateway, scripted
from lhrm_loadtest.__main__ import main
from lhrm_loadtest.grade import is_correct
from lhrm_loadtest.report import markdown
from lhrm_loadtest.rows import read_rows, read_run
from lhrm_loadtest.runner import Load
from lhrm_loadtest.summary import summarise
from lhrm_loadtest.workload import DEFAULT_PROMPTS, Arm, LoadTestError, Prompt, load_prompts, plan
from lhrm_server.engine_fake import Script

from lhrm_train.format import ChatTokenizer, SavingsBin, SavingsCalibration

PROMPTS = [Prompt(id=str(i), messages=[{"role": "user", "content": f"q{i}"}]) for i in range(9)]


def test_every_prompt_is_asked_once_in_each_arm():
    jobs = plan(PROMPTS, None, 1, seed=3)
    assert Counter((job.prompt.id, job.arm) for job in jobs) == Counter((p.id, arm) for p in PROMPTS for arm in Arm)
    assert [job.position for job in jobs] == list(range(18))


def test_order_is_abba_and_pairs_share_their_seed():
    jobs = plan(PROMPTS, 4, 2, seed=3)
    a, b = Arm.AUTO, Arm.THINK
    assert [job.arm for job in jobs] == [a, b, b, a] * 4
    for first, second in zip(jobs[::2], jobs[1::2], strict=True):
        assert (first.prompt, first.repeat, first.seed) == (second.prompt, second.repeat, second.seed)
    assert len({job.prompt.id for job in jobs}) == 4
    assert len({job.seed for job in jobs}) == 8


def test_plan_is_seeded():
    assert plan(PROMPTS, 5, 1, seed=1) == plan(PROMPTS, 5, 1, seed=1)
    assert plan(PROMPTS, 5, 1, seed=1) != plan(PROMPTS, 5, 1, seed=2)


@pytest.mark.parametrize(("n", "repeats", "named"), [(10, 1, "n=10"), (0, 1, "n=0"), (1, 0, "repeats=0")])
def test_plan_refuses(n, repeats, named):
    with pytest.raises(LoadTestError, match=named):
        plan(PROMPTS, n, repeats, seed=0)


def test_only_the_mode_differs_between_the_arms():
    load = Load("http://x", think_threshold=0.3, max_tokens=9, temperature=0.5)
    auto, think = (load.options(job) for job in plan(PROMPTS, 1, 1, seed=0))
    assert auto == {"max_tokens": 9, "temperature": 0.5, "seed": think["seed"], "mode": "auto", "think_threshold": 0.3}
    assert think == {"max_tokens": 9, "temperature": 0.5, "seed": auto["seed"], "mode": "think"}


@pytest.mark.parametrize(
    ("reference", "answer", "expected"),
    [
        ("42", "42", True),
        ("42", " 42.\n", True),
        ("Paris", "paris", True),
        ("a b", "a  b", True),
        ("42", "420", False),
        ("42", "The answer is 42", False),
        ("42", "", False),
        (("odd", "uneven"), "Uneven", True),
        (None, "42", None),
    ],
)
def test_grading(reference, answer, expected):
    prompt = Prompt(id="1", messages=[{"role": "user", "content": "q"}], answer=reference)
    assert is_correct(prompt, answer) is expected


def test_shipped_prompts_are_usable():
    prompts = load_prompts(DEFAULT_PROMPTS)
    assert all(prompt.answer and prompt.task and prompt.level is not None for prompt in prompts)
    assert any(len(prompt.messages) > 1 for prompt in prompts)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "no prompts"),
        ("nonsense", ":1: not JSON"),
        ("[]", ":1: line"),
        ('{"answer": "1"}', ":1: messages"),
        ('{"messages": []}', ":1: .*empty"),
        ('{"prompt": "a", "messages": []}', ":1: .*both"),
        ('{"prompt": 5}', ":1: messages"),
        ('{"prompt": "a", "level": 1, "lvl": 2}', ":1: lvl"),
        ('{"prompt": "a"}\n\n{"prompt": "b", "id": "1"}', "id '1' occurs twice"),
    ],
)
def test_unusable_prompt_files(tmp_path, text, named):
    path = tmp_path / "prompts.jsonl"
    path.write_text(text)
    with pytest.raises(LoadTestError, match=named):
        load_prompts(path)


def _answers(tokenizer):
    """Answer by the word in the question: easy ones at once, hard ones right only after reasoning."""
    easy = scripted(tokenizer, "it is easy so this reasoning is a waste of tokens", "right", p_think=0.1)
    hard = scripted(tokenizer, "it is hard", "right", p_think=0.9)

    def script(prompt_ids) -> Script:
        question = tokenizer.decode(prompt_ids)
        if "broken" in question:
            return Script(fail_at=2)
        return hard if "hard" in question else easy

    return script


def _prompt_file(tmp_path, *questions: str):
    path = tmp_path / "prompts.jsonl"
    rows = [{"prompt": q, "answer": "right", "task": "word", "level": q.split()[0]} for q in questions]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def gateway(loop_thread, nano_tokenizer):
    with fake_gateway(loop_thread, nano_tokenizer, _answers(nano_tokenizer)) as (url, engine):
        yield url, engine


def test_a_run_measures_the_known_saving(gateway, nano_tokenizer, tmp_path, capsys):
    url, engine = gateway
    before = len(engine.requests)
    prompts = _prompt_file(tmp_path, *(f"easy {i}" for i in range(6)), *(f"hard {i}" for i in range(3)))
    out = tmp_path / "run"
    assert main(["run", "--base-url", url + "/v1", "--prompts", str(prompts), "--out", str(out)]) == 0

    rows = read_rows(out)
    assert len(rows) == 18
    # Two warm-ups and 18 measured; each auto request also makes a decide call.
    assert len(engine.requests) - before == (2 + 18) + (1 + 9)
    script = _answers(nano_tokenizer)
    easy, hard = (script(tuple(nano_tokenizer.encode_text(word))) for word in ("easy", "hard"))
    summary = summarise(rows)
    saved = len(easy.think_ids) - len(easy.no_think_ids)
    assert summary.paired.pairs == 9
    assert summary.paired.saved_mean.value == pytest.approx(6 * saved / 9)
    always = 6 * len(easy.think_ids) + 3 * len(hard.think_ids)
    assert summary.paired.saved_pct.value == pytest.approx(100 * 6 * saved / always)
    assert summary.arms[Arm.AUTO].think_rate == pytest.approx(1 / 3)
    assert summary.arms[Arm.THINK].sources == {"request": 9}
    assert summary.arms[Arm.AUTO].accuracy == summary.arms[Arm.THINK].accuracy == 1
    assert [(level.name, level.think_rate) for level in summary.levels] == [("easy", 0), ("hard", 1)]
    for row in rows:
        times = row.outcome
        assert 0 < times.first_token_ms <= times.first_answer_ms <= times.total_ms

    last = capsys.readouterr().out.splitlines()[-1]
    values = dict(pair.split("=") for pair in last.split(" "))
    assert (values["pairs"], values["errors"], values["think_rate"]) == ("9", "0", "0.3333")


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
        assert main(["run", "--base-url", url, "--prompts", str(prompts), "--out", str(out)]) == 0
    online = summarise(read_rows(out)).online
    assert (online.pairs, online.no_think, online.intervals, online.covered) == (5, 4, 4, 4)
    assert online.no_think_bias.value == offset
    assert online.bias.value == pytest.approx(offset * 4 / 5)
    assert online.confidence == 0.9


def test_the_report_comes_from_the_rows_again(gateway, tmp_path, capsys):
    prompts, out = _prompt_file(tmp_path, "easy 1", "hard 1"), tmp_path / "run"
    assert main(["run", "--base-url", gateway[0], "--prompts", str(prompts), "--out", str(out), "--note", "n1"]) == 0
    first, report = capsys.readouterr().out.splitlines()[-1], (out / "report.md").read_text()
    for name in ("report.md", "report.png"):
        (out / name).unlink()
    assert main(["report", str(out)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == first
    assert (out / "report.md").read_text() == report
    assert (out / "report.png").stat().st_size > 5000
    run = read_run(out)
    assert (run.model, run.n, run.note, run.prompts) == (MODEL, 2, "n1", "prompts.jsonl")
    assert "- command: lhrm-loadtest run --base-url" in report
    (out / "run.json").unlink()
    assert first in markdown(summarise(read_rows(out)), read_run(out))


def test_failed_requests_are_rows_and_their_pairs_are_left_out(gateway, tmp_path, capsys):
    prompts, out = _prompt_file(tmp_path, "easy 1", "broken 1"), tmp_path / "run"
    assert main(["run", "--base-url", gateway[0], "--prompts", str(prompts), "--out", str(out)]) == 0
    failed = [row for row in read_rows(out) if row.error]
    assert {(row.prompt, row.arm) for row in failed} == {("2", Arm.AUTO), ("2", Arm.THINK)}
    assert all(row.outcome is None and row.request_id and "StreamError" in row.error for row in failed)
    assert "pairs=1 errors=2" in capsys.readouterr().out


def test_a_cap_that_thinking_eats_shows_as_missing_answers(gateway, tmp_path):
    prompts, out = _prompt_file(tmp_path, "easy 1", "easy 2"), tmp_path / "run"
    args = ["run", "--base-url", gateway[0], "--prompts", str(prompts), "--out", str(out), "--max-tokens", "4"]
    assert main(args) == 0
    arms = summarise(read_rows(out)).arms
    assert (arms[Arm.AUTO].without_answer, arms[Arm.THINK].without_answer) == (0, 2)
    assert arms[Arm.THINK].ended_by == {"length": 2}
    assert arms[Arm.THINK].completion_mean == 4
    assert "| ended without an answer | 0 | 2 |" in (out / "report.md").read_text()


def test_concurrency_is_the_number_of_requests_at_a_time(loop_thread, nano_tokenizer, tmp_path):
    prompts, peaks = _prompt_file(tmp_path, *(f"easy {i}" for i in range(8))), {}
    for limit in (1, 3):
        with fake_gateway(loop_thread, nano_tokenizer, Script(delay_s=0.002)) as (url, engine):
            seen = []
            plain = engine.script
            engine.script = lambda _, plain=plain, seen=seen, engine=engine: (seen.append(engine.active), plain)[1]
            out = str(tmp_path / f"run{limit}")
            assert (
                main(["run", "--base-url", url, "--prompts", str(prompts), "--out", out, "--concurrency", str(limit)])
                == 0
            )
            # The script is asked before its own request is counted.
            peaks[limit] = max(seen) + 1
    assert peaks == {1: 1, 3: 3}


def test_an_existing_run_is_not_overwritten(gateway, tmp_path, capsys):
    prompts, out = _prompt_file(tmp_path, "easy 1"), tmp_path / "run"
    args = ["run", "--base-url", gateway[0], "--prompts", str(prompts), "--out", str(out)]
    assert main(args) == 0
    rows = (out / "rows.jsonl").read_text()
    capsys.readouterr()
    assert main(args) == 1
    assert "choose another --out" in capsys.readouterr().err
    assert (out / "rows.jsonl").read_text() == rows


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--n", "99"], "n=99"),
        (["--model", "unknown"], "404"),
        (["--base-url", "http://127.0.0.1:9"], "could not connect"),
        (["--threshold", "7"], "think_threshold=7.0"),
        (["--prompts", "/nowhere.jsonl"], "cannot read prompts"),
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
    assert "Per arm" in done.stdout


def test_an_interrupted_run_keeps_its_rows(loop_thread, nano_tokenizer, tmp_path):
    plain, out = _answers(nano_tokenizer), tmp_path / "run"

    def script(prompt_ids) -> Script:
        return Script(hang_at=0) if "hang" in nano_tokenizer.decode(prompt_ids) else plain(prompt_ids)

    prompts = _prompt_file(tmp_path, *(f"easy {i}" for i in range(3)), "hang")
    command = [sys.executable, "-m", "lhrm_loadtest", "run", "--prompts", str(prompts), "--out", str(out)]
    with fake_gateway(loop_thread, nano_tokenizer, script) as (url, engine):
        process = subprocess.Popen(
            [*command, "--base-url", url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A test run started in the background ignores SIGINT, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        rows, deadline = out / "rows.jsonl", time.monotonic() + 60
        while not (rows.exists() and rows.read_text().count("\n") == 6 and engine.active):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (130, b"")
    assert b"stopped; rows so far are in" in stderr
    assert b"Traceback" not in stderr
    assert len(read_rows(out)) == 6


def test_missing_extra_is_named(monkeypatch, capsys):
    monkeypatch.setattr("lhrm_loadtest.__main__.find_spec", lambda name: None if name == "rich" else object())
    assert main(["report", "x"]) == 1
    assert "pip install 'lhrm[loadtest]'" in capsys.readouterr().err
