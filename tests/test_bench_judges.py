"""The comparison of load tests: how each one's results are read, what it used, and the whole with scripted judges.

tests/judges holds what AIPerf 0.13.0 and vllm bench serve 0.32.0 left of 16 prompts on the nano, cut down to a part of
their fields.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import ROOT
from lhrm_loadtest.errors import LoadTestError
from loadtest_rows import reply, row, write
from process_tree import gone

from bench import aiperf_install, judges
from bench.judge_kinds import JUDGES, Asked, Measured
from bench.judge_process import Usage, run_watched
from bench.judge_report import Result, counts_agree, counts_table, key_line, times_table
from bench.servers import Server, process

SAMPLES = ROOT / "tests" / "judges"
# Leaves the files of a sample in the folder that its options name, and adds its name to a list.
STAND_IN = """#!{python}
import shutil, sys
from pathlib import Path
given = dict(zip(sys.argv[1:], sys.argv[2:]))
folder = Path(given.get("--artifact-dir") or given.get("--result-dir") or given["--out"])
with open({called!r}, "a") as called:
    print({name!r}, given.get("--base-url") or given["--url"], file=called)
asked = given.get("--input-file") or given.get("--dataset-path") or given["--prompts"]
assert len(Path(asked).read_text().splitlines()) == 16
shutil.copytree({sample!r}, folder, dirs_exist_ok=True)
"""


def ours(folder):
    """A run of two requests, of which one failed, after a warm-up."""
    rows = [
        row("think", "cold", reply("think", 50), pair=0, warmup=True, ms=900.0, asked="plain"),
        row("think", "a", reply("think", 9, prompt_tokens=7), pair=1, scheduled_ms=1000.0, ms=10.0, asked="plain"),
        row("think", "b", None, pair=2, scheduled_ms=1500.0, ms=1000.0, asked="plain"),
    ]
    write(folder, rows)


def test_the_result_of_aiperf_is_read():
    assert JUDGES["aiperf"].measured(SAMPLES) == Measured(
        version="0.13.0",
        answered=16,
        errors=0,
        prompt_tokens=434,
        completion_tokens=539,
        reasoning_tokens=463,
        first_token_ms=(398.997779, 909.822284),
        total_ms=(4046.2691744999997, 6518.917901),
        began_s=1795403831.892076109,
        ended_s=1795403842.398535652,
    )


def test_the_result_of_vllm_is_read():
    told = JUDGES["vllm"].measured(SAMPLES)
    assert (told.answered, told.errors) == (16, 0)
    assert (told.prompt_tokens, told.completion_tokens, told.reasoning_tokens) == (434, 539, None)
    assert told.first_token_ms == (466.98045150697, 1346.5529362474626)
    assert told.total_ms == (2749.358069995651, 7543.052923243522)
    sample = json.loads((SAMPLES / "result.json").read_text())
    assert told.ended_s - told.began_s == pytest.approx(sample["duration"], abs=0.01)
    # The clock of its times is that of this process.
    before_s = time.perf_counter() - sample["start_times"][0]
    assert time.time() - told.began_s == pytest.approx(before_s, abs=1)


def test_our_own_result_is_read(tmp_path):
    ours(tmp_path / "run")
    os.utime(tmp_path / "run" / "rows.jsonl", (5000.0, 5000.0))
    told = JUDGES["lhrm"].measured(tmp_path)
    assert (told.answered, told.errors) == (1, 1)
    assert (told.prompt_tokens, told.completion_tokens, told.reasoning_tokens) == (7, 9, 5)
    assert (told.first_token_ms, told.total_ms) == ((10.0, 10.0), (30.0, 30.0))
    # The first measured request was sent at 1000 ms, the last ended at 4500.
    assert (told.began_s, told.ended_s) == (4996.5, 5000.0)


@pytest.mark.parametrize("name", JUDGES)
def test_a_missing_result_is_named(name, tmp_path):
    with pytest.raises(LoadTestError, match=re.escape(str(tmp_path))):
        JUDGES[name].measured(tmp_path)


@pytest.mark.parametrize(
    ("name", "file", "text"),
    [
        ("vllm", "result.json", "[]"),
        ("vllm", "result.json", '{"completed": 3}'),
        ("vllm", "result.json", '{"compl'),
        ("aiperf", "profile_export_aiperf.json", "{}"),
        ("aiperf", "phase_manifest.json", '{"phases": []}'),
        ("aiperf", "phase_manifest.json", '{"phases": [1]}'),
    ],
)
def test_a_result_that_cannot_be_read_is_one_line(name, file, text, tmp_path):
    shutil.copytree(SAMPLES, tmp_path, dirs_exist_ok=True)
    (tmp_path / file).write_text(text)
    with pytest.raises(LoadTestError, match=f"no result of {JUDGES[name].title} that can be read") as caught:
        JUDGES[name].measured(tmp_path)
    assert "\n" not in str(caught.value)


def test_all_ask_the_same(tmp_path):
    asked = Asked("http://h:1", "m", tmp_path, requests=256, streams=8, warmup=4, max_tokens=120)
    options = {name: judge.options(asked, tmp_path) for name, judge in JUDGES.items()}
    for name, given in options.items():
        assert {"8", "4"} <= set(given), name
        assert 'thinking": {"type": "enabled"}' in " ".join(given)
        assert "120" in re.findall(r"\d+", " ".join(given)), name
    assert [name for name, given in options.items() if "256" in given] == ["vllm", "aiperf"]


def run_code(code, folder, limit_s=20.0):
    return run_watched("judge", [sys.executable, "-c", code], folder, dict(os.environ), limit_s)


def test_the_processors_time_of_children_counts(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.judge_process.EVERY_S", 0.02)
    # The child is killed and not waited for, so that no account but its own has its time.
    code = (
        "import subprocess, sys, time, psutil\n"
        "burn = 'import time\\nwhile time.process_time() < 9: pass'\n"
        "child = psutil.Popen([sys.executable, '-c', burn])\n"
        "while sum(child.cpu_times()[:2]) < .2: time.sleep(.02)\n"
        "time.sleep(.1)\nchild.kill()\n"
    )
    usage = run_code(code, tmp_path)
    assert usage.total_s > 0.2
    assert usage.share(usage.at_s[0], usage.at_s[-1]) > 0


def test_the_share_is_of_the_time_between():
    usage = Usage(at_s=(100.0, 110.0, 120.0), cpu_s=(0.0, 8.0, 9.0), total_s=9.5)
    assert usage.share(110.0, 120.0) == pytest.approx(0.1)
    assert usage.share(105.0, 115.0) == pytest.approx((8.5 - 4.0) / 10)
    assert usage.share(110.0, 110.0) is None


def test_a_judge_that_fails_is_told_with_its_last_line(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.judge_process.EVERY_S", 0.02)
    with pytest.raises(LoadTestError, match="judge ended with 3: no such server; see"):
        run_code("import sys; print('no such server\\n'); sys.exit(3)", tmp_path)
    with pytest.raises(LoadTestError, match=r"judge: /nowhere/judge cannot be started: No such file"):
        run_watched("judge", ["/nowhere/judge"], tmp_path, {}, 1.0)


def test_a_judge_that_does_not_end_is_stopped_with_its_children(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.judge_process.EVERY_S", 0.02)
    code = (
        "import subprocess, sys, time\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(p.pid, flush=True)\ntime.sleep(60)\n"
    )
    with pytest.raises(LoadTestError, match="judge did not end in 0 s"):
        run_code(code, tmp_path, limit_s=0.4)
    (child,) = map(int, (tmp_path / "log.txt").read_text().split())
    assert gone(child)


def result(p95=9.0, prompts=10, reasoning=5, share=0.25, server=(8.0, 8.5)):
    measured = Measured(
        version="1",
        answered=2,
        errors=0,
        prompt_tokens=prompts,
        completion_tokens=20,
        reasoning_tokens=reasoning,
        first_token_ms=(1.0, 2.0),
        total_ms=(8.04, p95),
        began_s=0.0,
        ended_s=1.0,
    )
    return Result(measured=measured, cpu_share=share, cpu_s=1.25, server_ms=server, command=())


def test_the_tables_and_the_line_by_hand():
    counts = {"lhrm": result(), "vllm": result(reasoning=None), "aiperf": result()}
    assert counts_table(counts).splitlines()[3] == "| `vllm bench serve` 1 | 2 | 0 | 10 | 20 | not told |"
    times = {"aiperf": [result(9.0), result(11.06, share=None, server=None), result(10.0, share=0.75)]}
    assert times_table(times).splitlines()[-1] == (
        "| `AIPerf` 1 | 1.0, 2.0; 1.0, 2.0; 1.0, 2.0 | 8.0, 9.0; 8.0, 11.1; 8.0, 10.0 | 8.0, 8.5; 8.0, 8.5 "
        "| 25 %; na; 75 % | 1.2; 1.2; 1.2 |"
    )
    values = dict(pair.split("=") for pair in key_line(counts, times).split(" "))
    assert (values["repeats"], values["counts_agree"], values["completion_tokens_vllm"]) == ("3", "1", "20")
    assert (values["total_p95_ms_aiperf"], values["cpu_share_aiperf"]) == ("10", "0.5")
    assert values["server_total_p95_ms_aiperf"] == "8.5"
    assert not counts_agree({**counts, "vllm": result(prompts=11, reasoning=None)})
    assert not counts_agree({**counts, "aiperf": result(reasoning=6)})


def test_the_judges_take_turns():
    order = [(part.judge, part.repeat) for part in judges.parts(2)]
    assert order[:3] == [("lhrm", None), ("vllm", None), ("aiperf", None)]
    assert order[3:] == [("lhrm", 0), ("vllm", 0), ("aiperf", 0), ("vllm", 1), ("aiperf", 1), ("lhrm", 1)]


def test_questions_differ_and_stand_alone():
    asked = judges.questions(32)
    assert len(set(asked)) == 32
    assert judges.questions(32) == asked


def test_server_and_judge_have_different_processors():
    cores = os.sched_getaffinity(0)
    shared = cores if len(cores) == 1 else set()
    server = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        with judges._apart(server.pid, True):
            mine = os.sched_getaffinity(0)
            assert mine | os.sched_getaffinity(server.pid) == cores
            assert mine & os.sched_getaffinity(server.pid) == shared
        assert os.sched_getaffinity(0) == cores
        with judges._apart(server.pid, False):
            assert os.sched_getaffinity(0) == cores
    finally:
        server.kill()
        server.wait()


def test_the_recording_notes_its_own_times(tmp_path):
    noted = tmp_path / "noted"
    command = [sys.executable, "-m", "bench.canned"]
    with (
        process("canned", lambda port: [*command, str(port), "3", "5", str(noted)], tmp_path) as (url, _),
        urllib.request.urlopen(f"{url}/v1/chat/completions", data=b"{}", timeout=20) as response,
    ):
        body = response.read()
    assert body.endswith(b"data: [DONE]\n\n")
    (taken,) = noted.read_text().split()
    assert float(taken) >= 15


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """The command with scripted judges and without servers; the second value is the list of what was called."""
    called = tmp_path / "called"
    ours(tmp_path / "run")
    samples = {"lhrm": tmp_path / "run", "vllm": SAMPLES, "aiperf": SAMPLES}
    programs = {}
    for name, sample in samples.items():
        programs[name] = tmp_path / name
        values = {"python": sys.executable, "name": name, "called": str(called), "sample": str(sample)}
        programs[name].write_text(STAND_IN.format(**values))
        programs[name].chmod(0o755)
    monkeypatch.setattr("bench.judges.OURS", [str(programs["lhrm"])])
    monkeypatch.setattr("bench.judges.VLLM", [str(programs["vllm"])])
    monkeypatch.setattr("bench.judge_process.EVERY_S", 0.01)

    @contextmanager
    def gateway(folder):
        yield Server("embedded", "http://gateway", False, ())

    @contextmanager
    def canned(name, command, folder):
        Path(command(1)[-1]).write_text("99\n" * 8 + "600\n" * 16)
        yield f"http://{name}", os.getpid()

    monkeypatch.setattr("bench.judges.gateway", gateway)
    monkeypatch.setattr("bench.judges.process", canned)

    def run(*more, aiperf=programs["aiperf"]):
        given = ["--out", str(tmp_path / "out"), "--requests", "16", "--unpinned", "--aiperf", str(aiperf), *more]
        return judges.main([*given] if "--repeats" in more else [*given, "--repeats", "1"])

    return run, called, programs


def test_a_whole_comparison_and_what_is_run_again(bench, tmp_path, capsys):
    run, called, _ = bench
    assert run() == 0
    turns = ["lhrm", "vllm", "aiperf"]
    wanted = [f"{name} {url}" for url in ("http://gateway", "http://canned") for name in turns]
    assert called.read_text().splitlines() == wanted
    out = capsys.readouterr().out
    assert "| `AIPerf` 0.13.0 | 16 | 0 | 434 | 539 | 463 |" in out
    assert "| 399.0, 909.8 | 4046.3, 6518.9 | 600.0, 600.0 |" in out
    values = dict(pair.split("=") for pair in out.splitlines()[-1].split(" "))
    assert (values["repeats"], values["counts_agree"], values["total_p95_ms_vllm"]) == ("1", "0", "7543")
    assert (tmp_path / "out" / "report.md").read_text() == out

    # What has a result is not run again, a missing part is, and more repeats are added.
    assert run() == 0
    assert len(called.read_text().splitlines()) == 6
    (tmp_path / "out" / "times-0" / "aiperf" / "judge.json").unlink()
    assert run("--repeats", "2") == 0
    assert [line.split()[0] for line in called.read_text().splitlines()[6:]] == ["aiperf", "vllm", "aiperf", "lhrm"]
    capsys.readouterr()
    assert run("--streams", "4") == 1
    assert "was begun with another plan" in capsys.readouterr().err


def test_a_judge_that_fails_ends_the_comparison_in_one_line(bench, tmp_path, capsys):
    run, called, programs = bench
    sound = programs["vllm"].read_text()
    programs["vllm"].write_text(f"#!{sys.executable}\nraise SystemExit('no tokenizer')\n")
    assert run() == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "ended" in line]
    assert line.startswith("bench.judges: vllm bench serve ended with 1: no tokenizer; see ")
    programs["vllm"].write_text(f"#!{sys.executable}\n")
    assert run() == 1
    assert "counts/vllm: no result of vllm bench serve that can be read: FileNotFoundError" in capsys.readouterr().err
    # It goes on from there.
    programs["vllm"].write_text(sound)
    assert run() == 0
    assert called.read_text().split()[::2].count("lhrm") == 2


def test_an_aiperf_that_is_not_there_is_named_before_anything_runs(bench, capsys):
    run, called, _ = bench
    assert run(aiperf="/nowhere/aiperf") == 1
    assert capsys.readouterr().err == "bench.judges: /nowhere/aiperf is no executable\n"
    assert not called.exists()


def test_aiperf_is_installed_once_below_the_results(tmp_path, monkeypatch):
    commands = []

    def install(command, stdout, **_):
        commands.append(command)
        print("a long story\nERROR: no matching distribution", file=stdout)
        if "pip" in command:
            program = tmp_path / "aiperf" / "bin" / "aiperf"
            program.parent.mkdir(parents=True)
            program.write_text("")
            program.chmod(0o755)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr("bench.aiperf_install.subprocess.run", install)
    assert aiperf_install.installed(tmp_path) == str(tmp_path / "aiperf" / "bin" / "aiperf")
    assert [command[-1] for command in commands] == [str(tmp_path / "aiperf"), "aiperf==0.13.0"]
    aiperf_install.installed(tmp_path)
    assert len(commands) == 2


def test_an_aiperf_that_cannot_be_installed_is_one_line(tmp_path, monkeypatch):
    def fail(command, stdout, **_):
        print("looking\nERROR: no matching distribution\n", file=stdout, flush=True)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr("bench.aiperf_install.subprocess.run", fail)
    with pytest.raises(LoadTestError) as caught:
        aiperf_install.installed(tmp_path)
    assert str(caught.value) == (
        "aiperf==0.13.0 cannot be installed: ERROR: no matching distribution; --aiperf PATH takes one that is; "
        f"see {tmp_path / 'aiperf-install.txt'}"
    )


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.5"])
def test_a_count_is_from_1_on(text, capsys):
    with pytest.raises(SystemExit):
        judges.parse(["--requests", text])
    assert f"{text} is not a count from 1 on" in capsys.readouterr().err


def test_the_commands_of_the_documents_are_understood():
    text = (ROOT / "docs" / "loadtest.md").read_text(encoding="utf-8")
    commands = re.findall(r"python -m bench\.judges([^`\n]*)", text)
    assert commands
    for command in commands:
        judges.parse(shlex.split(command))
