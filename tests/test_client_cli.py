"""The lhrm command in a process of its own: what goes to which stream, and how it ends."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys

import pytest
from client_shell import ACCOUNTING, BODY
from fake_gateway import MODEL, fake_gateway, scripted
from lhrm_client import ChatResult, Latency
from lhrm_client.__main__ import summary_line
from lhrm_server.engine_fake import Script


@pytest.fixture(scope="module")
def url(loop_thread, nano_tokenizer):
    script = scripted(nano_tokenizer, "6 times 7", "é is 42", p_think=0.8)
    with fake_gateway(loop_thread, nano_tokenizer, script) as (url, _):
        yield url


def lhrm(*args: str, env: dict[str, str] | None = None, **kwargs) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lhrm_client", *args]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LHRM_")}
    defaults = {"capture_output": True, "text": True, "timeout": 60, "env": {**clean, **(env or {})}}
    return subprocess.run(command, check=False, **{**defaults, **kwargs})


@pytest.mark.parametrize("how", [[], ["--no-stream"]])
def test_reasoning_on_stderr_and_answer_on_stdout(url, how):
    done = lhrm("6 times 7?", "--base-url", url, *how)
    assert done.returncode == 0
    assert done.stdout == "é is 42\n"
    reasoning, ending = done.stderr.splitlines()
    assert reasoning == "6 times 7"
    assert ending.startswith("mode=think source=model p_think=0.800 tokens=")
    assert "saved=0 [0, 0]" in ending
    assert ending.endswith("ended_by=stop")


@pytest.mark.parametrize("how", [[], ["--no-stream"]])
def test_no_think(url, how):
    done = lhrm("6 times 7?", "--mode", "no_think", *how, env={"LHRM_BASE_URL": url})
    assert (done.returncode, done.stdout) == (0, "é is 42\n")
    (ending,) = done.stderr.splitlines()
    assert ending.startswith("mode=no_think source=request tokens=")
    assert "reasoning 0" in ending


def test_threshold_model_and_cap_are_sent(url):
    done = lhrm("q", "--threshold", "0.9", "--max-tokens", "3", "--model", MODEL, "--base-url", url)
    assert done.returncode == 0
    assert "mode=no_think source=model" in done.stderr
    assert "tokens=3 " in done.stderr
    assert "ended_by=length" in done.stderr


def test_json_is_one_object_and_nothing_else(url):
    done = lhrm("q", "--json", "--base-url", url)
    result = json.loads(done.stdout)
    assert (result["mode"], result["answer"], result["reasoning"]) == ("think", "é is 42", "6 times 7")
    assert result["savings"]["tokens"] == 0
    assert done.stderr == ""


def test_question_from_standard_input(url):
    done = lhrm("-", "--base-url", url, input="6 times 7?")
    assert (done.returncode, done.stdout) == (0, "é is 42\n")


def test_reasoning_is_dimmed_on_a_terminal_only(url):
    for no_color, expected in ({}, b"\x1b[2m"), ({"NO_COLOR": "1"}, b""):
        ours, theirs = pty.openpty()
        done = lhrm("q", "--base-url", url, env=no_color, capture_output=False, stdout=subprocess.PIPE, stderr=theirs)
        os.close(theirs)
        shown = os.read(ours, 65536)
        os.close(ours)
        assert done.stdout == "é is 42\n"
        assert (b"\x1b[2m" in shown) is bool(expected)


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
    reasoning, failure = done.stderr.splitlines()
    assert reasoning
    assert failure.startswith("lhrm: ")


def test_a_reader_that_left_is_no_traceback(url):
    ours, theirs = os.pipe()
    os.close(ours)
    done = lhrm(
        "q", "--mode", "no_think", "--base-url", url, capture_output=False, stdout=theirs, stderr=subprocess.PIPE
    )
    os.close(theirs)
    assert (done.returncode, done.stderr) == (1, "")


def test_wrong_usage_exits_with_2():
    assert lhrm("q", "--mode", "perhaps").returncode == 2
    assert lhrm().returncode == 2


def test_summary_line_shows_a_negative_saving():
    block = {**ACCOUNTING, "latency": Latency(), "savings": {"tokens": -3.4, "interval": None}}
    result = ChatResult(**block, answer="a", model="m", usage=BODY["usage"], raw={})
    assert "saved=-3 ended_by" in summary_line(result)
