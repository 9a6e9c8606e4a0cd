"""docs/client.md: its examples run and print what stands beside them, its tables name every option and command."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from typing import get_type_hints

import pytest
from conftest import ROOT
from fake_gateway import fake_gateway
from lhrm_client import DEFAULT_TIMEOUT, LHRM, ChatOptions
from lhrm_client._display import Display, Sink
from lhrm_client._repl import Repl
from lhrm_client._retry import RetryRule
from lhrm_server.engine_fake import Script

from lhrm_train.format import Mode, encode_answer

TEXT = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
URL = "http://127.0.0.1:8000"


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def title(block: str) -> str:
    return TEXT[: TEXT.index(block)].rpartition("\n## ")[2].partition("\n")[0]


EXAMPLES = [pytest.param(block, id=f"{title(block)} {i}") for i, block in enumerate(blocks(TEXT, "python"))]
COMMANDS = [line.partition(" #")[0].strip() for block in blocks(TEXT, "bash") for line in block.splitlines()]


def promised(block: str) -> list[str]:
    """Return what a block says it prints: comments beside a print, or on the line below it."""
    return [match[1].strip() for match in re.finditer(r"(?:print\(.*\)  |^ *)# (.*)$", block, re.MULTILINE)]


def fits(pattern: str, line: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("..."))), line) is not None


def run(block: str, url: str) -> None:
    code = block.replace(URL, url)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    printed, wanted = done.stdout.splitlines(), promised(block)
    assert len(printed) == len(wanted) > 0, done.stdout
    assert [(line, pattern) for line, pattern in zip(printed, wanted, strict=True) if not fits(pattern, line)] == []


@pytest.fixture(scope="module")
def nano_like(loop_thread, nano_tokenizer):
    """A gateway that answers the questions of the page as the shipped model does."""

    def bodies(reasoning, answer):
        return {
            "think_ids": tuple(encode_answer(nano_tokenizer, Mode.THINK, reasoning, answer)[1:]),
            "no_think_ids": tuple(encode_answer(nano_tokenizer, Mode.NO_THINK, "", answer)[1:]),
        }

    capital = bodies("The capital of France is asked. I recall that the capital of France is Paris.", "Paris")
    digits = bodies("E4D8C3B7A1+E9D2C6B1A5;A1+5+0=06,B7+1+0=08,C3+6+0=09,D8+2+0=10,E4+9+1=14", "140986")

    def script(prompt_ids):
        prompt = nano_tokenizer.decode(prompt_ids)
        grammar_ids = (*nano_tokenizer.encode_text('{"city": "Paris"}'), nano_tokenizer.turn_end_id)
        easy = "capital" in prompt
        return Script(p_think=0.0018 if easy else 0.996, grammar_ids=grammar_ids, **(capital if easy else digits))

    with fake_gateway(loop_thread, nano_tokenizer, script, model_name="lhrm-nano") as (url, _):
        yield url


@pytest.mark.parametrize("block", EXAMPLES)
def test_an_example_on_the_scripted_engine(block, nano_like):
    run(block, nano_like)


@pytest.mark.engine
@pytest.mark.parametrize("block", EXAMPLES)
def test_an_example_on_the_shipped_model(block, real_gateway):
    run(block, real_gateway)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command(command, nano_like):
    script = command.replace("lhrm chat", f"{shlex.quote(sys.executable)} -m lhrm_client chat")
    env = {**os.environ, "LHRM_BASE_URL": nano_like}
    done = subprocess.run(["bash", "-c", script], input="", env=env, capture_output=True, text=True, timeout=60)
    if command == "lhrm chat":
        # Without a terminal it waits for a question from a pipe.
        assert (done.returncode, done.stderr) == (1, "lhrm: the question is empty\n")
        return
    assert done.returncode == 0, done.stderr
    assert ('"answer": "140986"' if "--json" in command else "140986\n") in done.stdout


def test_the_commands_of_the_readme_are_commands():
    shown = [line for block in blocks(README, "bash") for line in block.splitlines() if re.match(r"\S*lhrm chat", line)]
    assert shown
    for line in shown:
        arguments = shlex.split(line, comments=True)[1:]
        assert (
            subprocess.run([sys.executable, "-m", "lhrm_client", *arguments, "--help"], capture_output=True).returncode
            == 0
        )


def column(heading: str) -> list[str]:
    """Return the first column of the table whose first heading is this."""
    rows = TEXT[TEXT.index(f"| {heading} |") :].partition("\n\n")[0].splitlines()[2:]
    return [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


def test_every_option_is_on_the_page():
    assert sorted(column("option")) == sorted(get_type_hints(ChatOptions))


def test_the_limits_are_on_the_page():
    text = " ".join(TEXT.split())
    assert f"{DEFAULT_TIMEOUT.read:.0f} unless given, and {DEFAULT_TIMEOUT.connect:.0f} for the connection" in text
    assert RetryRule(1).hint_cap_s == 60
    assert "where it is over a minute" in text


def test_every_command_is_on_the_page():
    with LHRM(URL) as lhrm:
        repl = Repl(lhrm.conversation(), Display(Sink(sys.stdout), Sink(sys.stderr)), input, None)
    assert column("command") == list(repl.commands)


@pytest.mark.parametrize(
    ("pattern", "line", "expected"),
    [("a ...", "a b", True), ("...", "", True), ("a", "ab", False), ("a...c", "ab", False), ("{...}", "{}", True)],
)
def test_patterns(pattern, line, expected):
    assert fits(pattern, line) is expected
