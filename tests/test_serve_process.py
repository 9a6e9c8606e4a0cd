"""The server as a process: start, refusal to start, every way to stop it, and what is left behind."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import NANO, ROOT
from process_tree import children, descendants, gone
from served import START_S, Served

SERVE = [sys.executable, "-m", "lhrm_server", "--cpu-kv-cache-bytes", str(1 << 26), "--port", "0"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    started: list[Served] = []

    def starter(command: list[str], **environment: str) -> Served:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(Served(command, folder, **environment))
        return started[-1]

    yield starter
    for served in started:
        served.end()


def post(url: str, **body: object) -> dict:
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.loads(response.read())


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status
    except urllib.error.HTTPError as exc:
        exc.close()
        return exc.code


QUESTION = {"model": "lhrm-nano", "messages": [{"role": "user", "content": "What is 2+3?"}]}


def fails_at_once(*arguments: str, environment: dict[str, str] | None = None) -> str:
    """Run lhrm-serve, expect a failure with exactly one line on stderr, and return it."""
    done = subprocess.run(
        [sys.executable, "-m", "lhrm_server", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env=environment,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_every_chat_request_is_one_line_of_the_log_without_its_text(start):
    served = start([*SERVE, "--engine", "fake"])
    reply = post(served.ready(), **QUESTION)
    assert served.wait_for(lambda: reply["id"] in served.errors, 10), served.errors
    line = next(line for line in served.errors.splitlines() if reply["id"] in line)
    record = json.loads(line[line.index("{") :])
    counts = {name: reply["lhrm"][name] for name in ("mode", "source", "reasoning_tokens", "answer_tokens")}
    assert counts.items() <= record.items()
    assert "2+3" not in served.errors
    assert reply["choices"][0]["message"]["content"] not in served.errors


def test_help_lists_the_options_with_their_defaults():
    done = subprocess.run([sys.executable, "-m", "lhrm_server", "--help"], capture_output=True, text=True, check=True)
    for option in ("--model", "--host", "--port", "--engine", "--think-threshold", "--default-mode", "--max-model-len"):
        assert option in done.stdout
    assert "(default: 8000)" in done.stdout
    assert "(default: 127.0.0.1)" in done.stdout


def test_a_missing_model_is_one_line_that_names_it():
    line = fails_at_once("--model", "no-such-model")
    assert "'no-such-model'" in line
    assert "nano" in line


def test_a_directory_without_a_manifest_is_one_line(tmp_path: Path):
    assert "not an LHRM checkpoint" in fails_at_once("--model", str(tmp_path))


def test_an_unknown_format_version_is_one_line(tmp_path: Path):
    folder = shutil.copytree(NANO, tmp_path / "other")
    manifest = json.loads((NANO / "lhrm.json").read_text())
    (folder / "lhrm.json").write_text(json.dumps({**manifest, "format_version": 99}))
    assert "format_version 99" in fails_at_once("--model", str(folder))


def test_a_busy_port_is_noticed_before_the_engine_loads():
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        started = time.monotonic()
        line = fails_at_once("--port", str(port))
        assert time.monotonic() - started < 15
    assert f"127.0.0.1:{port}" in line
    assert "in use" in line


@pytest.mark.parametrize(("option", "value"), [("--think-threshold", "1.5"), ("--port", "70000")])
def test_a_setting_out_of_range_is_one_line(option: str, value: str):
    line = fails_at_once(option, value)
    assert option.removeprefix("--").replace("-", "_") in line
    assert value in line


def test_without_the_server_extra_it_says_what_to_install(tmp_path: Path):
    code = (
        "import sys, importlib.machinery as m\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        return None\n"
        "finder = m.PathFinder.find_spec\n"
        "m.PathFinder.find_spec = lambda name, *a: None if name in ('uvicorn', 'fastapi') else finder(name, *a)\n"
        "from lhrm_server.__main__ import main\n"
        "sys.exit(main([]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr == ("lhrm-serve: fastapi, uvicorn not installed; install with: pip install 'lhrm[server]'\n")


def test_the_fake_engine_serves_and_sigterm_stops_it_with_code_0(start):
    served = start([*SERVE, "--engine", "fake", "--name", "demo"])
    url = served.ready()
    answer = post(url, model="demo", messages=QUESTION["messages"])
    assert answer["choices"][0]["message"]["content"]
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(30) == 0
    assert "error" not in served.errors


def only_error(served: Served) -> str:
    """Wait for a start to fail; return the one line on stderr after the line that says what is loaded."""
    assert served.process.wait(START_S) == 1
    loading, *rest = served.errors.splitlines()
    assert "loading" in loading
    assert len(rest) == 1, served.errors
    assert served.output == ""
    return rest[0]


def test_a_broken_checkpoint_is_one_line(start, tmp_path: Path):
    folder = shutil.copytree(NANO, tmp_path / "broken")
    (folder / "model.safetensors").write_bytes(b"not a checkpoint")
    line = only_error(start([*SERVE, "--model", str(folder)]))
    assert line.startswith(f"lhrm-serve: error: vLLM could not load {folder}: ")


def test_an_engine_process_that_fails_to_start_is_one_line_with_the_cause(start):
    line = only_error(start([*SERVE, "--cpu-kv-cache-bytes", "1000"]))
    assert "ValueError: No available memory for the cache blocks" in line


@pytest.mark.engine
def test_make_serve_answers_its_own_curl_line_and_ctrl_c_leaves_nothing(start):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    served = start(["make", "--no-print-directory", "serve"], PORT=port, HOST="127.0.0.1", MODEL="nano")
    assert served.ready() == f"http://127.0.0.1:{port}"
    curl = next(line for line in served.output.splitlines() if line.startswith("try: ")).removeprefix("try: ")
    answer = json.loads(subprocess.run(shlex.split(curl), capture_output=True, check=True, timeout=60).stdout)
    assert answer["lhrm"]["mode"] in {"think", "no_think"}
    assert answer["usage"]["completion_tokens"] > 0
    everyone = descendants(served.process.pid)
    assert served.engine() in everyone
    os.killpg(served.process.pid, signal.SIGINT)
    served.process.wait(40)
    assert gone(*everyone)
    assert "Traceback" not in served.errors


@pytest.mark.engine
def test_sigterm_to_make_leaves_nothing(start):
    served = start(["make", "--no-print-directory", "serve"], PORT="0")
    served.ready()
    everyone = descendants(served.process.pid)
    assert len(everyone) >= 2
    served.process.send_signal(signal.SIGTERM)
    served.process.wait(40)
    assert gone(*everyone, within_s=30)


@pytest.mark.engine
def test_sigkill_of_the_gateway_takes_the_engine_along(start):
    served = start(SERVE)
    served.ready()
    engine = served.engine()
    os.kill(served.gateway(), signal.SIGKILL)
    assert gone(engine)


@pytest.mark.engine
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_while_the_engine_loads_leaves_nothing(start, number):
    served = start(SERVE)
    seen: set[int] = set()

    def stays() -> bool:
        # vLLM also starts short-lived probes of the machine; the engine is the child that is still there later.
        before = set(children(served.process.pid))
        time.sleep(0.3)
        seen.clear()
        seen.update(before & set(children(served.process.pid)))
        return len(seen) == 1

    assert served.wait_for(stays, START_S), served.errors
    (engine,) = seen
    served.process.send_signal(number)
    assert served.process.wait(10) == -number
    assert gone(engine)
    assert "ready" not in served.output


@pytest.mark.engine
def test_when_the_engine_dies_requests_fail_ready_is_503_and_the_process_ends(start):
    served = start(SERVE)
    url = served.ready()
    assert status(f"{url}/ready") == 200
    assert post(url, **QUESTION, max_tokens=4)["usage"]["completion_tokens"] > 0
    os.kill(served.engine(), signal.SIGKILL)
    assert served.wait_for(lambda: "engine died" in served.errors, 10)
    assert status(f"{url}/ready") == 503
    with pytest.raises(urllib.error.HTTPError) as failure:
        post(url, **QUESTION)
    assert failure.value.code in {500, 503}
    assert json.loads(failure.value.read())["error"]["message"]
    assert served.process.wait(30) == 1
    ours = [line for line in served.errors.splitlines() if line.startswith("lhrm-serve: error:")]
    assert ours == ["lhrm-serve: error: the engine died; stopping"]
