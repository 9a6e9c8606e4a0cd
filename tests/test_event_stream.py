"""The event decoder on a table of streams, whatever the chunking."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lhrm_server.event_stream import EventDecoder

# They end lines in Python's texts, not in event streams.
NO_LINE_ENDS = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg"

STREAMS = {
    "line feeds": (b"data: a\n\ndata: b\n\n", [b"a", b"b"]),
    "carriage returns": (b"data: a\r\rdata: b\r\r", [b"a", b"b"]),
    "both": (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
    "mixed": (b"data: a\r\n\ndata: b\n\r\ndata: c\r\r\n", [b"a", b"b", b"c"]),
    "comments": (b": keep-alive\n\ndata: a\n: x\n\n:\n\n", [b"a"]),
    "other fields": (b"event: e\nid: 1\nretry: 2\ndata: a\n\nevent: alone\n\n", [b"a"]),
    "several lines": (b"data: a\ndata:\ndata: b\n\n", [b"a\n\nb"]),
    "one space goes": (b"data:a\n\ndata:  a\n\n", [b"a", b" a"]),
    "empty data": (b"data\n\ndata:\n\n", [b"", b""]),
    "a colon in the data": (b"data: a: b\n\n", [b"a: b"]),
    "byte order mark": (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
    "no end": (b"data: a\n\ndata: b\n", [b"a"]),
    "no data": (b"\n\n\r\n\r\n", []),
    "other line ends": (f"data: {NO_LINE_ENDS}\n\n".encode(), [NO_LINE_ENDS.encode()]),
    "characters of four bytes": ("data: 思考🤔\r\n\r\n".encode(), ["思考🤔".encode()]),
}


def decode(*chunks: bytes) -> list[bytes]:
    decoder = EventDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


@pytest.mark.parametrize(("stream", "events"), STREAMS.values(), ids=STREAMS.keys())
def test_every_chunking_gives_the_same_events(stream, events):
    assert decode(stream) == events
    assert decode(*(stream[i : i + 1] for i in range(len(stream)))) == events
    for first in range(len(stream) + 1):
        for second in range(first, len(stream) + 1):
            assert decode(stream[:first], stream[first:second], b"", stream[second:]) == events


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]))), st.data())
def test_what_was_framed_comes_back(texts, data):
    ends = st.sampled_from(["\n", "\r", "\r\n"])
    stream = b""
    for text in texts:
        stream += f"data: {text}{data.draw(ends)}".encode()
        end = data.draw(ends)
        # A line feed right after a carriage return is part of the same line end.
        stream += b"\r\n" if stream.endswith(b"\r") and end == "\n" else end.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    places = [0, *cuts, len(stream)]
    chunks = [stream[a:b] for a, b in pairwise(places)]
    assert decode(*chunks) == [text.encode() for text in texts]


def test_an_event_comes_out_with_its_last_byte():
    decoder = EventDecoder()
    assert decoder.feed(b"data: a\r") == []
    assert decoder.feed(b"\r") == [b"a"]
    assert decoder.feed(b"\ndata: b\n") == []
    assert decoder.feed(b"\n") == [b"b"]


@pytest.mark.parametrize("stream", [b"data: 0123456789", b"data: 01234\ndata: 56\n", b"x" * 20])
def test_an_event_without_end_is_refused(stream):
    with pytest.raises(ValueError, match="more than 12 bytes"):
        EventDecoder(longest_event_bytes=12).feed(stream)


def test_many_short_events_are_not_one_long_one():
    assert len(EventDecoder(longest_event_bytes=12).feed(b"data: 0123\n\n" * 100)) == 100
