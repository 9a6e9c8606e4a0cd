"""Stream decoding at every split of the bytes, and streams as they come over a real socket."""

from __future__ import annotations

import json
import re

import pytest
from client_shell import ACCOUNTING, BODY, CHOICE, DECISION, FRAMES, frame
from hypothesis import given
from hypothesis import strategies as st
from lhrm_client import (
    AnswerDelta,
    ChatResult,
    Finished,
    LHRMError,
    ModeChosen,
    ReasoningDelta,
    ResponseFormatError,
    StreamError,
    StreamInterruptedError,
    ToolCall,
    ToolCallDelta,
    Usage,
    UsageReport,
)
from lhrm_client._sse import SSEDecoder
from lhrm_client._stream import ChatStreamReader

EVENTS = [
    (b"data: a\n\ndata: b\n\n", ["a", "b"]),
    (b"data: a\r\n\r\ndata: b\r\n\r\n", ["a", "b"]),
    (b"data: a\r\rdata: b\r\r", ["a", "b"]),
    (b"data: a\r\n\ndata: b\n\r\n", ["a", "b"]),
    (b"\xef\xbb\xbfdata: a\n\n", ["a"]),
    (b"data:a\n\n", ["a"]),
    (b"data:  a\n\n", [" a"]),
    (b"data: a\ndata: b\n\n", ["a\nb"]),
    (b"data: a\r\ndata: b\r\n\r\n", ["a\nb"]),
    (b"data\n\n", [""]),
    (b": keep-alive\n\ndata: a\n\n", ["a"]),
    (b"event: x\nid: 1\nretry: 5\ndata: a\n\n", ["a"]),
    (b"\n\n\ndata: a\n\n", ["a"]),
    ("data: é€🙂\n\n".encode(), ["é€🙂"]),
    ("data: a\u2028b\u0085c\x0bd\x1ce\n\n".encode(), ["a\u2028b\u0085c\x0bd\x1ce"]),
    (b"data: \xff\n\n", ["\ufffd"]),
    (b"data: a\n\ndata: unfinished\n", ["a"]),
    (b"database: a\n\n", []),
]


def _feed(cuts: list[bytes]) -> list[str]:
    decoder = SSEDecoder()
    return [data for cut in cuts for data in decoder.feed(cut)]


@pytest.mark.parametrize(("raw", "expected"), EVENTS)
def test_decoder_at_every_split(raw, expected):
    assert _feed([raw]) == expected
    assert _feed([raw[i : i + 1] for i in range(len(raw))]) == expected
    for first in range(len(raw) + 1):
        for second in range(first, len(raw) + 1):
            assert _feed([raw[:first], raw[first:second], raw[second:]]) == expected


def test_an_event_is_returned_as_soon_as_it_is_complete():
    for ending in (b"\n\n", b"\r\n\r\n", b"\r\r"):
        decoder = SSEDecoder()
        # A lone CR already ends a line, so the LF of the last CRLF is not waited for.
        complete = len(ending) - 1 if ending.endswith(b"\r\n") else len(ending)
        assert decoder.feed(b"data: a" + ending[:complete]) == ["a"]


LINE = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=8)


@given(st.lists(st.lists(LINE, min_size=1, max_size=3), max_size=5), st.sampled_from(["\n", "\r\n", "\r"]), st.data())
def test_decoder_inverts_framing(events, newline, data):
    raw = "".join("".join(f"data: {line}{newline}" for line in lines) + newline for lines in events).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert _feed(pieces) == ["\n".join(lines) for lines in events]


def _read(chunks: list[bytes]) -> tuple[str, str, ChatResult]:
    reader = ChatStreamReader("req-1")
    events = [event for chunk in chunks for event in reader.feed(chunk)]
    reader.finish()
    reasoning = "".join(event.text for event in events if isinstance(event, ReasoningDelta))
    answer = "".join(event.text for event in events if isinstance(event, AnswerDelta))
    (finished,) = [event for event in events if isinstance(event, Finished)]
    assert events[-1] is finished
    return reasoning, answer, finished.result


def test_reader_at_every_split():
    raw = b"".join(FRAMES)
    expected = _read([raw])
    assert expected[:2] == ("6*7", "42")
    assert expected[2].raw == BODY
    for cut in range(len(raw) + 1):
        assert _read([raw[:cut], raw[cut:]]) == expected
    assert _read([raw[i : i + 1] for i in range(len(raw))]) == expected


def test_choices_are_told_apart():
    frames = [
        frame({"role": "assistant", "content": "a"}, lhrm=DECISION),
        frame({"role": "assistant", "content": "b"}, index=1),
        frame({"content": "c"}),
        frame({}, "length", index=1, choice={"lhrm": CHOICE}),
        frame({}, "stop", choice={"stop_reason": "!", "lhrm": {**CHOICE, "answer_missing": "empty"}}, lhrm=ACCOUNTING),
        frame(usage=BODY["usage"]),
        FRAMES[-1],
    ]
    result = _read(frames)[2]
    assert [(c.index, c.answer, c.finish_reason, c.stop_reason) for c in result.choices] == [
        (0, "ac", "stop", "!"),
        (1, "b", "length", None),
    ]
    assert (result.answer, result.finish_reason, result.answer_missing) == ("ac", "stop", "empty")
    assert result.choices[1].accounting.reasoning_tokens == 3


def test_pieces_of_tool_calls_add_up():
    def piece(index, arguments, call_id=None, name=None):
        start = {"id": call_id, "type": "function"} if call_id else {}
        return {"index": index, **start, "function": {**({"name": name} if name else {}), "arguments": arguments}}

    pieces = [piece(0, '{"city":', "c1", "weather"), piece(0, ' "Paris"}'), piece(1, "{}", "c2", "clock")]
    reader = ChatStreamReader(None)
    events = [event for part in pieces for event in reader.feed(frame({"tool_calls": [part]}, lhrm=DECISION))]
    assert events[1:] == [
        ToolCallDelta(0, '{"city":', "c1", "weather"),
        ToolCallDelta(0, ' "Paris"}'),
        ToolCallDelta(1, "{}", "c2", "clock"),
    ]
    ending = [frame({}, "tool_calls", choice={"lhrm": CHOICE}, lhrm=ACCOUNTING), frame(usage=BODY["usage"]), FRAMES[-1]]
    _, finished = reader.feed(b"".join(ending))
    assert finished.result.tool_calls == (
        ToolCall(id="c1", name="weather", arguments='{"city": "Paris"}'),
        ToolCall(id="c2", name="clock", arguments="{}"),
    )
    assert finished.result.raw["choices"][0]["message"]["content"] is None


def test_hidden_reasoning_is_none_though_tokens_were_spent():
    frames = [frame({"content": "a"}, lhrm=DECISION), *FRAMES[4:]]
    assert _read(frames)[2].reasoning is None


def test_counts_so_far_are_no_report():
    reader = ChatStreamReader(None)
    assert list(reader.feed(frame({"content": "a"}, usage=BODY["usage"]))) == [AnswerDelta("a")]
    assert list(reader.feed(frame(usage=BODY["usage"]))) == [UsageReport(Usage(**BODY["usage"], reasoning_tokens=3))]


def test_either_name_of_the_reasoning_is_read_once():
    for delta in ({"reasoning": "r"}, {"reasoning_content": "r"}, {"reasoning": "r", "reasoning_content": "r"}):
        reader = ChatStreamReader(None)
        assert list(reader.feed(frame(delta))) == [ReasoningDelta("r")]


def test_nothing_after_the_end_marker_is_read():
    reader = ChatStreamReader(None)
    assert isinstance([*reader.feed(b"".join(FRAMES))][-1], Finished)
    assert list(reader.feed(b'data: {"error": {"message": "late"}}\n\n')) == []
    reader.finish()


def test_empty_reasoning_of_a_thinking_answer_is_text_and_of_a_direct_one_is_none():
    for mode, expected in (("think", ""), ("no_think", None)):
        frames = [
            frame({"content": "a"}),
            frame({}, "stop", lhrm={**ACCOUNTING, "mode": mode}),
            frame(usage=BODY["usage"]),
            FRAMES[-1],
        ]
        assert _read(frames)[2].reasoning == expected


@pytest.mark.parametrize(
    ("frames", "error"),
    [
        ([b"data: {\n\n"], ResponseFormatError),
        ([b"data: []\n\n"], ResponseFormatError),
        ([b'data: {"choices": ["x"]}\n\n'], ResponseFormatError),
        ([b'data: {"choices": [{"delta": "x"}]}\n\n'], ResponseFormatError),
        ([b'data: {"choices": [{"delta": {"content": 5}}]}\n\n'], ResponseFormatError),
        ([b'data: {"choices": [{"delta": {"tool_calls": [{"index": 1}]}}]}\n\n'], ResponseFormatError),
        ([b'data: {"choices": 5}\n\n'], ResponseFormatError),
        ([b'data: {"choices": [], "usage": 5}\n\n'], ResponseFormatError),
        ([b'data: {"lhrm": {"mode": "perhaps"}}\n\n'], ResponseFormatError),
        ([b'data: {"lhrm": "think"}\n\n'], ResponseFormatError),
        ([FRAMES[0], FRAMES[-1]], ResponseFormatError),  # no usage, accounting incomplete
        ([*FRAMES[:4], FRAMES[-1]], ResponseFormatError),
        ([b'data: {"error": "boom"}\n\n'], StreamError),
        ([b'data: {"error": {"message": null}}\n\n'], StreamError),
        ([b'data: {"error": null}\n\n'], StreamError),
        (FRAMES[:-1], StreamInterruptedError),
        ([], StreamInterruptedError),
        ([b"data: [DONE]\n"], StreamInterruptedError),
    ],
)
def test_malformed_streams(frames, error):
    with pytest.raises(error) as caught:
        _read(frames)
    assert type(caught.value) is error
    assert (caught.value.request_id, caught.value.status) == ("req-1", 200)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([b'data: {"choices": [{"delta": {"content": 5}}]}\n\n'], "a stream frame is malformed: delta.content"),
        ([b'data: {"lhrm": {"mode": "perhaps"}}\n\n'], "a stream frame is malformed: mode, source"),
        ([FRAMES[0], FRAMES[-1]], "missing or malformed in the response: AttributeError"),
        (FRAMES[:-1], "the stream ended before [DONE]"),
    ],
)
def test_what_is_malformed_is_named(frames, message):
    with pytest.raises(LHRMError, match=re.escape(message)):
        _read(frames)


@pytest.mark.parametrize("broken", [b'data: {"error": {"message": "engine died"}}\n\n', b"data: {\n\n", FRAMES[-1]])
def test_what_came_before_an_error_is_yielded_whatever_the_chunks(broken):
    """FRAMES[-1] is the end marker, an error where no accounting came."""
    raw = b"".join(FRAMES[:4]) + broken
    for cut in range(len(raw)):
        reader, events = ChatStreamReader(None), []
        with pytest.raises(LHRMError):
            events.extend(event for chunk in (raw[:cut], raw[cut:]) for event in reader.feed(chunk))
        assert events == [ModeChosen("think", "model", 0.9, 0.5), ReasoningDelta("6*7"), AnswerDelta("42")]


def test_why_the_bytes_ended_is_told():
    for cause, why in ((OSError("reset"), "(reset)"), (OSError(), "(OSError)")):
        with pytest.raises(StreamInterruptedError, match=re.escape(f"the stream ended before [DONE] {why}")):
            ChatStreamReader(None).finish(cause)


def test_log_probabilities_add_up():
    def entry(text):
        return {"token": text, "logprob": -0.5}

    frames = [
        frame({"content": "a"}, lhrm=DECISION, choice={"logprobs": {"content": [entry("a")], "refusal": None}}),
        frame({"content": "b"}, choice={"logprobs": {"content": None}}),
        frame({"content": "c"}, choice={"logprobs": {"content": [entry("b"), entry("c")], "refusal": None}}),
        *FRAMES[4:],
    ]
    choice = _read(frames)[2].raw["choices"][0]
    assert choice["logprobs"] == {"content": [entry("a"), entry("b"), entry("c")], "refusal": None}


def test_error_frame_keeps_what_the_server_said():
    reader = ChatStreamReader("req-1")
    error = {"error": {"message": "engine died", "type": "server_error", "param": None, "code": "engine_dead"}}
    with pytest.raises(StreamError, match="engine died") as caught:
        list(reader.feed(b"data: " + json.dumps(error).encode() + b"\n\n"))
    assert (caught.value.type, caught.value.param, caught.value.code) == ("server_error", None, "engine_dead")
