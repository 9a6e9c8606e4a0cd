"""What the load test sends, and what it reads from gateways and from other OpenAI endpoints."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lhrm_loadtest.arms import Arm
from lhrm_loadtest.prompts import Prompt
from lhrm_loadtest.wire import ReplyError, StreamReader, build_body, status_message

PROMPT = Prompt(id="1", messages=[{"role": "system", "content": "s"}, {"role": "user", "content": "q"}])
USAGE = {"prompt_tokens": 7, "completion_tokens": 12, "total_tokens": 19}
LHRM = {
    "mode": "no_think",
    "source": "model",
    "p_think": 0.2,
    "threshold": 0.5,
    "reasoning_tokens": 0,
    "answer_tokens": 10,
    "overhead_tokens": 2,
    "decide_tokens": 1,
    "ended_by": "stop",
    "reasoning_ended_by": None,
    "latency": {"queue_ms": 0.5, "decide_ms": 1.25, "total_ms": 3.0},
    "savings": {"tokens": 9.5, "interval": [4, 12], "confidence": 0.9, "n": 40, "method": "calibration"},
    "later": "ignored",
}


def line(event) -> bytes:
    return b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n"


def delta(**fields):
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


END = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def read(*events, answer_after: str = "") -> StreamReader:
    """Feed events one millisecond apart, the first at 1."""
    reader = StreamReader(answer_after)
    for now, event in enumerate(events, start=1):
        reader.feed(line(event), float(now))
    return reader


def test_the_body_of_a_request():
    body = build_body(Arm(name="auto"), "m", PROMPT, 5, 9, 0.5)
    assert body == {
        "model": "m",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "seed": 5,
        "max_tokens": 9,
        "temperature": 0.5,
        "thinking": {"type": "auto"},
    }
    plain = build_body(Arm(name="p", mode="plain"), "m", PROMPT, 5, None, None)
    assert plain.keys() == {"model", "messages", "stream", "stream_options", "seed"}


def test_a_gateways_stream():
    first = {**delta(role="assistant", content="4"), "lhrm": {"mode": "no_think", "p_think": 0.2}}
    reader = read(first, delta(content="2"), {**END, "lhrm": LHRM}, {"choices": [], "usage": USAGE}, b"[DONE]")
    reply = reader.reply()
    assert (reply.answer, reply.mode, reply.source, reply.p_think) == ("42", "no_think", "model", 0.2)
    assert (reply.prompt_tokens, reply.completion_tokens, reply.answer_tokens, reply.decide_tokens) == (7, 12, 10, 1)
    assert (reply.savings.tokens, reply.savings.interval, reply.savings.confidence) == (9.5, (4, 12), 0.9)
    assert (reply.queue_ms, reply.decide_ms) == (0.5, 1.25)
    assert (reader.first_token, reader.first_answer) == (1.0, 1.0)


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_is_a_first_token_but_no_answer(name):
    reader = read(delta(role="assistant", content=""), delta(**{name: "hm"}), delta(**{name: "m"}), delta(content="4"))
    assert (reader.first_token, reader.first_answer) == (2.0, 4.0)


def test_another_endpoint_thinks_where_it_sends_reasoning():
    usage = {**USAGE, "completion_tokens_details": {"reasoning_tokens": 8}}
    reply = read(delta(reasoning="hm"), delta(content="4"), {**END, "usage": usage}, b"[DONE]").reply()
    assert (reply.mode, reply.reasoning_tokens, reply.ended_by) == ("think", 8, "stop")
    assert (reply.source, reply.p_think, reply.savings, reply.decide_tokens) == (None, None, None, 0)
    silent = read(delta(content="4"), {**END, "usage": USAGE}, b"[DONE]").reply()
    assert (silent.mode, silent.reasoning_tokens) == ("no_think", None)


def test_reasoning_left_in_the_content_ends_at_a_text():
    events = [delta(content=text) for text in ("so ", "on EN", "D", "\n", "42", "!")]
    reader = read(*events, {**END, "usage": USAGE}, b"[DONE]", answer_after="END")
    reply = reader.reply()
    assert (reply.answer, reply.mode) == ("42!", "think")
    assert (reader.first_token, reader.first_answer) == (1.0, 5.0)
    endless = read(delta(content="so on"), {**END, "usage": USAGE}, b"[DONE]", answer_after="END")
    assert (endless.reply().answer, endless.first_answer) == ("", None)


@pytest.mark.parametrize("text", [b"\n", b": keep-alive\n", b"event: x\n", b"id: 3\n"])
def test_lines_that_carry_nothing(text):
    reader = StreamReader()
    reader.feed(text, 1.0)
    assert (reader.first_token, reader.done) == (None, False)


def test_line_ends_do_not_matter():
    reader = StreamReader()
    reader.feed(b'data:{"choices": [{"delta": {"content": "4"}}]}\r\n', 1.0)
    reader.feed(b"data:[DONE]\r\n", 2.0)
    assert (reader.first_answer, reader.done) == (1.0, True)


@pytest.mark.parametrize(
    ("event", "named"),
    [
        (b"{", "not JSON"),
        ([1], "not a JSON object"),
        (
            {"error": {"message": "engine  failed", "code": "engine_error"}},
            "in the stream: engine_error: engine failed",
        ),
        ({"error": "gone"}, "in the stream: .*gone"),
    ],
)
def test_events_that_end_a_request(event, named):
    with pytest.raises(ReplyError, match=named):
        read(delta(content="4"), event)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "4", "think"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["delta", "content", "reasoning", "prompt_tokens", "mode"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@given(st.fixed_dictionaries({}, optional={"choices": JSON, "usage": JSON, "lhrm": JSON}))
def test_whatever_an_endpoint_sends_is_a_reply_or_an_error_of_that_request(event):
    reader = StreamReader()
    try:
        reader.feed(line(event), 1.0)
        reader.feed(line({**END, "usage": USAGE}), 2.0)
        reader.feed(line(b"[DONE]"), 3.0)
        reply = reader.reply()
    except ReplyError:
        return
    assert reply.completion_tokens == 12
    assert (reader.first_answer is None) or reply.answer


@pytest.mark.parametrize(
    ("events", "named"),
    [
        ([delta(content="4"), {**END, "usage": USAGE}], r"before \[DONE\]"),
        ([delta(content="4"), END, b"[DONE]"], "no usage"),
        ([{**END, "usage": {"prompt_tokens": 3}}, b"[DONE]"], "completion_tokens"),
        ([{**END, "usage": USAGE, "lhrm": {"mode": "think"}}, b"[DONE]"], "reasoning_tokens"),
    ],
)
def test_streams_that_cannot_be_counted(events, named):
    with pytest.raises(ReplyError, match=named):
        read(*events).reply()


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (b'{"error": {"message": "full", "code": "overloaded"}}', "503 overloaded: full"),
        (b'{"error": {"message": "full"}}', "503 full"),
        (b'{"error": "full"}', '503 {"error": "full"}'),
        (b"<html>\n no </html>", "503 <html> no </html>"),
        (b"", "503 "),
        (b"\xff", "503 \ufffd"),
    ],
)
def test_the_error_of_a_reply_that_is_no_stream(content, shown):
    assert status_message(503, content) == shown


def test_long_errors_are_cut():
    assert len(status_message(500, b"x" * 10_000)) < 250
