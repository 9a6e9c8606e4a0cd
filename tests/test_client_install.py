"""A base install in a fresh environment: what it pulls in, and that it is enough to use the client."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from fake_gateway import fake_gateway, scripted
from terminal import terminal

from tests.needed import missing

# httpx and pydantic, what they require, and what every environment has.
ALLOWED = {
    "lhrm",
    *("httpx", "httpcore", "h11", "anyio", "sniffio", "certifi", "idna"),
    *("pydantic", "pydantic-core", "annotated-types", "typing-extensions", "typing-inspection"),
    *("pip", "setuptools"),
}
HEAVY = ("torch", "transformers", "vllm", "fastapi", "uvicorn", "tokenizers", "numpy", "rich", "openai")
USE = """
import asyncio, sys
import lhrm_client, lhrm_client.openai
print([name for name in {heavy!r} if name in sys.modules])
url = {url!r}
with lhrm_client.LHRM(url) as lhrm:
    reply = lhrm.chat("q", mode="think")
    print(reply.mode, reply.answer, lhrm_client.openai.mode_of(reply.raw))
    with lhrm.stream("q", mode="no_think") as events:
        print(events.finish().answer)
async def main():
    async with lhrm_client.AsyncLHRM(url) as lhrm:
        print((await lhrm.conversation("s").chat("q")).p_think)
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The folder of the commands of an environment that has the project without extras."""
    root = tmp_path_factory.mktemp("base")
    # A build leaves files in its tree, and would take up those of an earlier one.
    for name in ("client", "server", "loadtest", "lhrm_train"):
        shutil.copytree(ROOT / name, root / "tree" / name, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, root / "tree" / name)
    subprocess.run([sys.executable, "-m", "venv", root / "venv"], check=True)
    pins = ROOT / "constraints" / "cpu.txt"
    command = [root / "venv" / "bin" / "pip", "install", "--quiet", "--constraint", pins, root / "tree"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if "No matching distribution" in done.stderr:
        missing(f"no package index: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return root / "venv" / "bin"


@pytest.fixture(scope="module")
def url(loop_thread, nano_tokenizer):
    with fake_gateway(loop_thread, nano_tokenizer, scripted(nano_tokenizer, "6 times 7", "42", p_think=0.25)) as (
        url,
        _,
    ):
        yield url


@pytest.fixture
def env(tmp_path):
    """The environment of the commands, without the paths of this one."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LHRM_"))}
    return {**clean, "XDG_STATE_HOME": str(tmp_path), "TERM": "xterm"}


def run(env, cwd, *command):
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=env, cwd=cwd)


def test_only_httpx_and_pydantic_are_pulled_in(base, env, tmp_path):
    listed = json.loads(run(env, tmp_path, base / "pip", "list", "--format=json").stdout)
    names = {entry["name"].lower().replace("_", "-") for entry in listed}
    assert {"lhrm", "httpx", "pydantic"} <= names <= ALLOWED


def test_it_is_enough_for_both_clients(base, env, tmp_path, url):
    done = run(env, tmp_path, base / "python", "-c", USE.format(heavy=HEAVY, url=url))
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["[]", "think 42 think", "42", "0.25"]


def test_the_command_works_in_a_pipe(base, env, tmp_path, url):
    done = run(env, tmp_path, base / "lhrm", "chat", "q", "--base-url", url)
    assert (done.returncode, done.stdout) == (0, "42\n")
    assert done.stderr.startswith("[no_think] P(think) 0.250")


def test_at_a_terminal_the_reasoning_stays_and_the_extra_is_named(base, env, url):
    with terminal([str(base / "lhrm"), "chat", "--mode", "think", "--base-url", url], env) as screen:
        screen.expect("pip install 'lhrm[chat]'")
        screen.expect("think> ")
        screen.line("q?")
        shown = screen.expect("42")
        assert "\x1b[2m6" in shown
        assert "thought for" not in shown
        screen.line("/fold")
        screen.expect("pip install 'lhrm[chat]'")
        screen.line("/quit")
        assert screen.ended() == 0


@pytest.mark.parametrize("command", ["lhrm-serve", "lhrm-loadtest"])
def test_the_other_commands_say_what_to_install(base, env, tmp_path, command):
    done = run(env, tmp_path, base / command)
    assert done.returncode == 1
    assert "pip install 'lhrm[" in done.stderr
    assert "Traceback" not in done.stderr
