"""``lhrm chat`` at a pseudo-terminal: the conversation, the fold, the commands, the keys."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from fake_gateway import MODEL, fake_gateway, scripted
from gateway_fixtures import eventually
from lhrm_client._fold import FoldedReasoning
from lhrm_client._line_input import LineInput, default_history
from lhrm_server.engine_fake import Script
from rich.console import Console
from terminal import plain, terminal

from tests.needed import program

REASONING = " ".join(f"{n}. I recall that the capital of France is Paris." for n in range(16))
THINK_BADGE, NO_THINK_BADGE = "\x1b[30;45m think \x1b[0m", "\x1b[30;42m no_think \x1b[0m"
FOLD = "▸ thought for "


@pytest.fixture(scope="module")
def served(loop_thread, nano_tokenizer):
    script = scripted(nano_tokenizer, REASONING, "é is 42", p_think=0.8)
    with fake_gateway(loop_thread, nano_tokenizer, script) as (url, engine):
        yield url, engine


@contextmanager
def chat(url, tmp_path, *args, **changes):
    """Talk; the first prompt has come."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("LHRM_", "NO_COLOR"))}
    env |= {"TERM": "xterm-256color", "XDG_STATE_HOME": str(tmp_path), "PYTHONUNBUFFERED": "1", **changes}
    with terminal([sys.executable, "-m", "lhrm_client", "chat", "--base-url", url, *args], env) as screen:
        screen.expect("/help lists the commands")
        screen.expect("> ")
        yield screen


def test_reasoning_is_live_and_dimmed_and_folds_when_the_answer_begins(served, tmp_path):
    with chat(served[0], tmp_path) as screen:
        screen.line("6 times 7?")
        badge = screen.expect("threshold 0.5")
        assert THINK_BADGE in badge
        assert " P(think) 0.800" in plain(badge)
        live = screen.expect(FOLD)
        assert "\x1b[2m" in live
        assert "I recall" in plain(live)
        # What stood there is erased line by line before the fold is written, and it was never more than eight lines.
        erased = [len(run) // len("\x1b[1A\x1b[2K") for run in re.findall(r"(?:\x1b\[1A\x1b\[2K)+", live)]
        assert max(erased) <= 8
        rest = plain(screen.expect("> "))
        assert "/reasoning shows it\né is 42\n" in rest
        assert "saved 0, it chose to think" in rest


def test_the_screen_of_tmux(loop_thread, nano_tokenizer, tmp_path):
    program("tmux")

    def tmux(*args):
        command = ["tmux", "-S", tmp_path / "socket", *args]
        # os.environ, unlike what a child inherits by itself, has no COLUMNS that readline set in this process.
        env = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=30).stdout

    def screen():
        return tmux("capture-pane", "-p").rstrip("\n").splitlines()

    script = scripted(nano_tokenizer, REASONING, "é is 42", p_think=0.8, delay_s=0.01)
    with fake_gateway(loop_thread, nano_tokenizer, script) as (url, _):
        chat = f"{sys.executable} -m lhrm_client chat --base-url {url}; sleep 60"
        tmux("-f", "/dev/null", "new-session", "-d", "-x", "76", "-y", "20", chat)
        try:
            eventually(lambda: screen()[-1:] == [">"], timeout_s=30)
            tmux("send-keys", "6 times 7?", "Enter")
            eventually(lambda: len(screen()) > 6, timeout_s=30)
            top = [f"{MODEL}; /help lists the commands", "> 6 times 7?", " think  P(think) 0.800, threshold 0.5"]
            live = screen()
            assert live[:3] == top
            assert "I recall" in live[3]
            eventually(lambda: screen()[-1:] == [">"], timeout_s=30)
            done = screen()
        finally:
            tmux("kill-server")
    assert done[:3] == top
    assert re.fullmatch(r"▸ thought for \d+\.\d s, /reasoning shows it", done[3])
    assert done[4] == "é is 42"
    assert re.fullmatch(r"\d+ tokens \(\d+ reasoning, 6 answer\) · saved 0, it chose to think · \d+\.\d\d s", done[5])
    assert done[6:] == [">"]


def test_commands(served, tmp_path):
    with chat(served[0], tmp_path) as screen:
        screen.line("/reasoning")
        screen.expect("the last answer has no reasoning")
        screen.line("/mode no_think")
        screen.expect("no_think> ")
        screen.line("one?")
        assert NO_THINK_BADGE in screen.expect("as asked")
        assert FOLD not in screen.expect("no estimate of a saving")
        screen.line("/threshold 0.9")
        screen.expect("a threshold needs /mode auto")
        screen.line("/mode auto")
        screen.expect("auto> ")
        screen.line("/threshold 0.9")
        screen.expect("auto> ")
        screen.line("two?")
        assert NO_THINK_BADGE in screen.expect("P(think) 0.800, threshold 0.9")
        screen.expect("auto> ")
        screen.line("/mode think")
        screen.expect("think> ")
        screen.line("/fold")
        screen.expect("reasoning stays")
        screen.line("three?")
        shown = screen.expect("reasoning, ")
        assert FOLD not in shown
        assert REASONING in plain(shown)
        screen.line("/fold")
        screen.expect("reasoning folds when it ends")
        screen.line("/reasoning")
        screen.expect("15. I recall")
        screen.line("/history")
        history = plain(screen.expect("user: three?") + screen.expect("assistant: é is 42"))
        assert history.count("user: ") == history.count("assistant: é is 42") == 3
        screen.line("/reset")
        screen.expect("a new conversation")
        screen.line("/history")
        screen.line("/quit")
        assert "user: " not in plain(screen.expect("/quit"))
        assert screen.ended() == 0


def test_the_conversation_is_sent(served, tmp_path, nano_tokenizer):
    with chat(served[0], tmp_path, "--mode", "no_think", "--system", "Be brief.") as screen:
        for question in ("alpha?", "beta?"):
            screen.line(question)
            screen.expect("no estimate")
            screen.expect("> ")
    prompt = nano_tokenizer.decode(served[1].requests[-1].prompt_ids)
    places = [prompt.index(text) for text in ("Be brief.", "alpha?", "é is 42", "beta?")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/help", "/reasoning"),
        ("/mode", "/mode : not one of auto, think, no_think"),
        ("/mode perhaps", "/mode perhaps: not one of auto, think, no_think"),
        ("/threshold 2", "/threshold 2: not a number from 0 to 1"),
        ("/threshold x", "/threshold x: not a number from 0 to 1"),
        ("/frob", "/frob is no command; /help lists them"),
    ],
)
def test_what_a_command_says(served, tmp_path, line, said):
    with chat(served[0], tmp_path) as screen:
        screen.line(line)
        screen.expect(said)
        screen.expect("> ")


def test_ctrl_c_stops_an_answer_and_the_engine_and_the_conversation_goes_on(loop_thread, nano_tokenizer, tmp_path):
    scripts = [Script(hang_at=3), Script()]
    with (
        fake_gateway(loop_thread, nano_tokenizer, lambda _: scripts.pop(0)) as (url, engine),
        chat(url, tmp_path, "--mode", "think") as screen,
    ):
        screen.line("one?")
        eventually(lambda: engine.hanging == 1, timeout_s=30)
        time.sleep(0.2)
        screen.type("\x03")
        screen.expect("stopped; the question is not kept")
        eventually(lambda: engine.aborted == 1 and engine.active == 0)
        screen.expect("think> ")
        screen.line("/reasoning")
        screen.expect("The")
        screen.expect("think> ")
        screen.line("two?")
        screen.expect("A scripted answer.")
        screen.expect("think> ")
        assert "one?" not in nano_tokenizer.decode(engine.requests[-1].prompt_ids)
        screen.type("half a line")
        screen.expect("half a line")
        time.sleep(0.2)  # between a key and the wait for the next Python's readline notices a signal only at the next
        screen.type("\x03")
        screen.expect("think> ")
        screen.type("\x04")
        assert screen.ended() == 0


def test_an_error_is_a_line_and_the_conversation_goes_on(loop_thread, nano_tokenizer, tmp_path):
    scripts = [Script(fail_at=5), Script()]
    with (
        fake_gateway(loop_thread, nano_tokenizer, lambda _: scripts.pop(0)) as (url, _),
        chat(url, tmp_path, "--mode", "think") as screen,
    ):
        screen.line("one?")
        screen.expect("lhrm: ")
        screen.expect("think> ")
        screen.line("two?")
        screen.expect("A scripted answer.")


def test_typed_lines_come_back_in_the_next_conversation(served, tmp_path):
    with chat(served[0], tmp_path) as screen:
        screen.line("/mode no_think")
        screen.expect("no_think> ")
        screen.line("/quit")
        assert screen.ended() == 0
    assert (tmp_path / "lhrm" / "history").read_text() == "/mode no_think\n/quit\n"
    with chat(served[0], tmp_path, "--no-history") as screen:
        screen.type("\x1b[A")
        screen.line("/quit")
        assert screen.ended() == 0
    with chat(served[0], tmp_path) as screen:
        screen.type("\x1b[A\x1b[A\r")
        screen.expect("no_think> ")


@pytest.mark.parametrize("changes", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_without_styles_the_reasoning_stays_and_nothing_is_escaped(served, tmp_path, changes):
    with chat(served[0], tmp_path, **changes) as screen:
        screen.line("6 times 7?")
        screen.expect("[think] P(think) 0.800")
        shown = screen.expect("saved 0")
        assert REASONING in shown
        assert "\x1b[2m" not in shown
        assert FOLD not in shown


@pytest.mark.parametrize("folding", [False, True])
def test_control_characters_of_a_model_do_not_reach_the_terminal(loop_thread, nano_tokenizer, tmp_path, folding):
    script = scripted(nano_tokenizer, "r\x1b]0;title\x07", "a\x1b[2Jb\x9bc")
    with (
        fake_gateway(loop_thread, nano_tokenizer, script) as (url, _),
        chat(url, tmp_path, "--mode", "think") as screen,
    ):
        if not folding:
            screen.line("/fold")
            screen.expect("reasoning stays")
        screen.line("q?")
        shown = screen.expect("reasoning, ")
        assert "\x1b]" not in shown
        assert "\x1b[2J" not in shown
        assert "r\ufffd]0;title\ufffd" in plain(shown)
        assert "a\ufffd[2Jb\ufffdc" in shown


def test_answers_can_go_to_a_file_while_talking(served, tmp_path):
    out = tmp_path / "answers"
    command = f"exec {sys.executable} -m lhrm_client chat --mode think --base-url {served[0]} >{out}"
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "TERM": "xterm"}
    with terminal(["bash", "-c", command], env) as screen:
        screen.expect("think> ")
        screen.line("6 times 7?")
        assert "é is 42" not in plain(screen.expect("reasoning, "))
        screen.expect("think> ")
        screen.line("/quit")
        assert screen.ended() == 0
    assert out.read_text(encoding="utf-8") == "é is 42\n"


def test_a_user_without_a_home_can_talk(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert default_history() is None
    monkeypatch.setattr("builtins.input", lambda prompt="": f"typed after {prompt}")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with LineInput(default_history()) as lines:
        assert lines.read("> ") == "typed after > "


def test_a_server_that_is_not_there(tmp_path):
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "lhrm_client", "chat", "--base-url", "http://127.0.0.1:9"]
    with terminal(command, env) as screen:
        screen.expect("lhrm: could not connect to http://127.0.0.1:9")
        assert screen.ended() == 1


def test_json_needs_a_question(tmp_path):
    with terminal([sys.executable, "-m", "lhrm_client", "chat", "--json"], {**os.environ}) as screen:
        screen.expect("--json needs a question")
        assert screen.ended() == 2


def test_model_is_named_at_the_beginning(served, tmp_path):
    with chat(served[0], tmp_path) as screen:
        assert f"{MODEL}; /help" in screen.shown


@pytest.mark.parametrize("separator", [" ", "\n", ""])
def test_the_window_shows_the_end_of_a_long_text_and_keeps_little_of_it(separator):
    screen = io.StringIO()
    view = FoldedReasoning(Console(file=screen, force_terminal=True, width=40, height=24, color_system=None))
    for n in range(3000):
        view.feed(f"step {n}.{separator}")
    lines = view._window().plain.split("\n")
    assert len(lines) == 8
    assert all(len(line) <= 40 for line in lines)
    assert "".join(lines).rstrip().endswith("step 2999.")
    assert len(view._text) <= 4 * 8 * 40
    view.end()
    assert screen.getvalue().rpartition(FOLD)[2].endswith(" s, /reasoning shows it\n")
