"""The lhrm command in a process of its own: what goes to which stream, and how it ends."""

from __future__ import annotations

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from importlib.metadata import version

import pytest
from client_shell import ACCOUNTING, BODY
from fake_gateway import MODEL, fake_gateway, scripted
from gateway_fixtures import eventually
from lhrm_client import ChatResult, Latency, ModeChosen
from lhrm_client._wording import decision_note, savings_line
from lhrm_server.engine_fake import Script

from tests.needed import device


@pytest.fixture(scope="module")
def url(loop_thread, nano_tokenizer):
    script = scripted(nano_tokenizer, "6 times 7", "é is 42", p_think=0.8)
    with fake_gateway(loop_thread, nano_tokenizer, script) as (url, _):
        yield url


def start(*args: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lhrm_client", "chat", *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def lhrm(*args: str, env: dict[str, str] | None = None, **kwargs) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lhrm_client", "chat", *args]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LHRM_")}
    defaults = {"capture_output": True, "text": True, "timeout": 60, "env": {**clean, **(env or {})}}
    return subprocess.run(command, check=False, **{**defaults, **kwargs})


# What is not flushed fails at the exit of the interpreter, and only where it is buffered.
BUFFERED = {"PYTHONUNBUFFERED": ""}


def streams(**replaced) -> dict:
    """Return the streams of a command, captured but for those that are replaced."""
    return {"capture_output": False, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **replaced}


def test_reasoning_on_stderr_and_answer_on_stdout(url):
    done = lhrm("6 times 7?", "--base-url", url)
    assert done.returncode == 0
    assert done.stdout == "é is 42\n"
    badge, reasoning, ending = done.stderr.splitlines()
    assert badge == "[think] P(think) 0.800, threshold 0.5"
    assert reasoning == "6 times 7"
    assert ending.startswith("12 tokens (4 reasoning, 6 answer) · saved 0, it chose to think · ")


def test_no_think(url):
    done = lhrm("6 times 7?", "--mode", "no_think", env={"LHRM_BASE_URL": url})
    assert (done.returncode, done.stdout) == (0, "é is 42\n")
    badge, ending = done.stderr.splitlines()
    assert badge == "[no_think] as asked"
    assert ending.startswith("8 tokens (0 reasoning, 6 answer) · no estimate of a saving · ")


def test_threshold_model_and_cap_are_sent(url):
    done = lhrm("q", "--threshold", "0.9", "--max-tokens", "3", "--model", MODEL, "--base-url", url)
    assert done.returncode == 0
    badge, ending = done.stderr.splitlines()
    assert badge == "[no_think] P(think) 0.800, threshold 0.9"
    assert ending.startswith("3 tokens (0 reasoning, 3 answer)")
    assert "cut at the limit of tokens" in ending


def test_budget_and_system_message_are_sent(loop_thread, nano_tokenizer):
    with fake_gateway(loop_thread, nano_tokenizer) as (url, engine):
        done = lhrm("q", "--mode", "think", "--budget", "2", "--system", "Be brief.", "--base-url", url)
    assert "(2 reasoning, " in done.stderr
    assert "Be brief." in nano_tokenizer.decode(engine.requests[0].prompt_ids)


def test_json_is_one_object_and_nothing_else(url):
    done = lhrm("q", "--json", "--base-url", url)
    result = json.loads(done.stdout)
    assert (result["mode"], result["answer"], result["reasoning"]) == ("think", "é is 42", "6 times 7")
    assert result["savings"]["tokens"] == 0
    assert "raw" not in result
    assert done.stderr == ""


@pytest.mark.parametrize("args", [["-"], [], ["--json"]])
def test_question_from_a_pipe(loop_thread, nano_tokenizer, args):
    script = scripted(nano_tokenizer, "r", "é is 42")
    with fake_gateway(loop_thread, nano_tokenizer, script) as (url, engine):
        done = lhrm(*args, "--base-url", url, input="6 times 7?\nSay why.\n")
    assert done.returncode == 0
    answer = json.loads(done.stdout)["answer"] if args == ["--json"] else done.stdout.rstrip("\n")
    assert answer == "é is 42"
    # The whole input is one question.
    assert "6 times 7?\nSay why.\n" in nano_tokenizer.decode(engine.requests[-1].prompt_ids)


def test_an_empty_pipe_is_no_question(url):
    done = lhrm("--base-url", url, input=" \n")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "lhrm: the question is empty\n")


def test_what_no_encoding_can_say_is_replaced(url):
    done = lhrm(
        "--mode", "no_think", "--base-url", url, input=b"caf\xe9", text=False, env={"PYTHONIOENCODING": "ascii"}
    )
    assert (done.returncode, done.stdout) == (0, b"? is 42\n")


def test_ctrl_c_stops_the_answer_and_the_engine(loop_thread, nano_tokenizer):
    with fake_gateway(loop_thread, nano_tokenizer, Script(hang_at=3)) as (url, engine):
        process = start("q", "--mode", "think", "--base-url", url)
        eventually(lambda: engine.hanging == 1)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode == 130
        eventually(lambda: engine.aborted == 1 and engine.active == 0)


def test_reasoning_is_dimmed_on_a_terminal_only(url):
    for no_color, expected in ({}, b"\x1b[2m"), ({"NO_COLOR": "1"}, b""):
        ours, theirs = pty.openpty()
        done = lhrm("q", "--base-url", url, env=no_color, capture_output=False, stdout=subprocess.PIPE, stderr=theirs)
        os.close(theirs)
        shown = os.read(ours, 65536)
        os.close(ours)
        assert done.stdout == "é is 42\n"
        assert (b"\x1b[2m6 times 7" in shown.replace(b"\x1b[0m\x1b[2m", b"")) is bool(expected)


def test_failures_are_one_line(url):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for args, named in (
        (["--base-url", f"http://127.0.0.1:{port}"], "could not connect"),
        (["--base-url", "nowhere"], "base_url='nowhere'"),
        (["--base-url", url, "--threshold", "2"], "think_threshold=2.0"),
        (["--base-url", url, "--model", "unknown"], "status 404"),
    ):
        done = lhrm("q", *args)
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.splitlines()
        assert line.startswith("lhrm: ")
        assert named in line


def test_failure_within_the_stream(loop_thread, nano_tokenizer):
    with fake_gateway(loop_thread, nano_tokenizer, Script(fail_at=5)) as (url, _):
        done = lhrm("q", "--mode", "think", "--base-url", url)
    assert done.returncode == 1
    badge, reasoning, failure = done.stderr.splitlines()
    assert badge == "[think] as asked"
    assert reasoning
    assert failure.startswith("lhrm: ")


def test_a_reader_that_left_is_no_traceback(url):
    ours, theirs = os.pipe()
    os.close(ours)
    done = lhrm(
        "q", "--mode", "no_think", "--base-url", url, capture_output=False, stdout=theirs, stderr=subprocess.PIPE
    )
    os.close(theirs)
    assert (done.returncode, done.stderr) == (1, "[no_think] as asked\n")


@pytest.mark.parametrize("args", [[], ["--json"]])
def test_a_full_disk_is_one_line(url, args):
    with device("/dev/full").open("w") as full:
        done = lhrm("q", "--mode", "no_think", *args, "--base-url", url, env=BUFFERED, **streams(stdout=full))
    assert done.returncode == 1
    assert done.stderr.splitlines()[0 if args else 1 :] == [
        "lhrm: input or output failed: [Errno 28] No space left on device"
    ]


def test_a_full_disk_for_what_is_told_about_the_answer(url):
    ours, theirs = os.pipe()
    # An exception would end with 1, too, and its traceback has nowhere to go: so what main returns is asked for.
    arguments = ["chat", "q", "--mode", "no_think", "--base-url", url]
    code = f"import os; from lhrm_client.__main__ import main; os.write({theirs}, b'%d' % main({arguments!r}))"
    with device("/dev/full").open("w") as full:
        subprocess.run([sys.executable, "-c", code], stderr=full, pass_fds=(theirs,), check=False, timeout=60)
    os.close(theirs)
    with os.fdopen(ours) as told:
        assert told.read() == "1"


def test_a_reader_of_json_that_left_is_no_traceback(url):
    ours, theirs = os.pipe()
    os.close(ours)
    done = lhrm("q", "--json", "--base-url", url, env=BUFFERED, **streams(stdout=theirs))
    os.close(theirs)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("args", [["--mode", "perhaps", "q"], ["q", "more"], ["--budget", "x", "q"]])
def test_wrong_usage_exits_with_2(args):
    done = lhrm(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: lhrm")


def test_without_a_command_the_usage_is_shown():
    done = subprocess.run([sys.executable, "-m", "lhrm_client"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "chat" in done.stderr


def test_version():
    command = [sys.executable, "-m", "lhrm_client", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == f"lhrm {version('lhrm')}\n"


BLOCK = {**ACCOUNTING, "mode": "no_think", "reasoning_tokens": 0, "latency": Latency(total_ms=1234.0)}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"savings": {"tokens": 57.6, "interval": (37.2, 86.9)}}, "saved about 58 (37 to 87)"),
        ({"savings": {"tokens": 57.6}}, "saved about 58"),
        ({"savings": {"tokens": -3.4}}, "cost about 3 more than thinking"),
        ({"savings": {"tokens": -3.4, "interval": (-9, 1)}}, "cost about 3 more than thinking (-1 to 9)"),
        ({"savings": None}, "no estimate of a saving"),
        ({"mode": "think"}, "saved 0, it chose to think"),
        ({"savings": None, "ended_by": "length"}, "no estimate of a saving · cut at the limit of tokens"),
        ({"savings": None, "answer_missing": "eos"}, "no estimate of a saving · no answer (eos)"),
    ],
)
def test_the_line_below_an_answer(changes, line):
    result = ChatResult(**{**BLOCK, **changes}, answer="a", model="m", usage=BODY["usage"], raw={})
    assert savings_line(result) == f"7 tokens (0 reasoning, 2 answer) · {line} · 1.23 s"


@pytest.mark.parametrize(
    ("event", "note"),
    [
        (ModeChosen("think", "model", 0.91234, 0.5), "P(think) 0.912, threshold 0.5"),
        (ModeChosen("think", "model", 0.91234), "P(think) 0.912"),
        (ModeChosen("think", "request"), "as asked"),
        (ModeChosen("no_think", "policy"), "by the server's policy"),
        (ModeChosen("no_think", "moon"), "moon"),
    ],
)
def test_who_decided(event, note):
    assert decision_note(event) == note
