"""Conversations: which turns are sent, and which are kept."""

from __future__ import annotations

import pytest
from client_shell import FRAMES, Script, Shell, failing, ok, stream_ok
from lhrm_client import ArgumentError, BadRequestError, StreamInterruptedError

ANSWER = {"role": "assistant", "content": "42"}


@pytest.fixture(params=["sync", "async"])
def shell(request) -> Shell:
    return Shell(request.param == "async")


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def answers(method: str):
    return ok() if method == "chat" else stream_ok()


@pytest.mark.parametrize("method", ["chat", "stream"])
def test_every_call_sends_the_turns_before_it(shell, method):
    script = Script(answers(method))
    with shell.session(script) as lhrm:
        conversation = lhrm.get("conversation", "Be brief.")
        conversation.do(method, "one")
        conversation.do(method, "two")
        system = {"role": "system", "content": "Be brief."}
        assert script.body["messages"] == [system, user("one"), ANSWER, user("two")]
        assert conversation.wrapped.turns.messages == [system, user("one"), ANSWER, user("two"), ANSWER]
        conversation.wrapped.reset()
        assert conversation.wrapped.turns.messages == [system]


def test_reasoning_is_not_sent_back(shell):
    script = Script(ok())
    with shell.session(script) as lhrm:
        conversation = lhrm.get("conversation")
        assert conversation.do("chat", "one").reasoning == "6*7"
        conversation.do("chat", "two")
    assert "6*7" not in str(script.body["messages"])


def test_options_hold_for_every_call_and_yield_to_those_of_one(shell):
    script = Script(ok())
    with shell.session(script) as lhrm:
        conversation = lhrm.get("conversation", mode="think", max_tokens=9)
        conversation.do("chat", "one", mode="no_think")
        assert (script.body["thinking"], script.body["max_tokens"]) == ({"type": "disabled"}, 9)
        conversation.do("chat", "two")
        assert script.body["thinking"] == {"type": "enabled"}
        conversation.wrapped.turns.options = {"mode": "auto"}
        conversation.do("chat", "three")
        assert script.body["thinking"] == {"type": "auto"}
        assert "max_tokens" not in script.body


def test_earlier_turns_can_be_taken_up(shell):
    script = Script(ok())
    before = [user("one"), ANSWER]
    with shell.session(script) as lhrm:
        conversation = lhrm.get("conversation", messages=before)
        conversation.do("chat", "two")
        assert script.body["messages"] == [*before, user("two")]
        assert before == [user("one"), ANSWER]
        conversation.wrapped.reset()
        assert conversation.wrapped.turns.messages == before


def test_two_openings_are_refused(shell):
    with (
        shell.session(Script(ok())) as lhrm,
        pytest.raises(ArgumentError, match="system and messages"),
    ):
        lhrm.get("conversation", "Be brief.", messages=[user("one")])


@pytest.mark.parametrize("method", ["chat", "stream"])
def test_a_question_that_failed_is_not_kept(shell, method):
    script = Script(failing(400), answers(method))
    with shell.session(script) as lhrm:
        conversation = lhrm.get("conversation")
        with pytest.raises(BadRequestError):
            conversation.do(method, "one")
        assert conversation.wrapped.turns.messages == []
        conversation.do(method, "two")
        assert script.body["messages"] == [user("two")]


def test_a_stream_that_is_cut_or_closed_is_not_kept(shell):
    script = Script(stream_ok(FRAMES[:3]), stream_ok())
    with shell.session(script) as lhrm:
        conversation = lhrm.get("conversation")
        with pytest.raises(StreamInterruptedError):
            conversation.do("stream", "one")
        stream = conversation.get("stream", "two")
        stream.next()
        stream.do("close")
        assert conversation.wrapped.turns.messages == []


def test_finish_reads_to_the_end_and_keeps(shell):
    with shell.session(Script(stream_ok())) as lhrm:
        conversation = lhrm.get("conversation")
        stream = conversation.get("stream", "one")
        stream.next()
        assert stream.do("finish").answer == "42"
        assert stream.do("finish").answer == "42"
        assert conversation.wrapped.turns.messages == [user("one"), ANSWER]
