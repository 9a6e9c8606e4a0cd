"""What the client tries again, when, and what it never does: anything after the first event."""

from __future__ import annotations

import random
from datetime import UTC, datetime

import httpx
import lhrm_client
import pytest
from client_shell import FRAMES, Script, Shell, failing, ok, stream_ok
from lhrm_client import AnswerDelta, ModeChosen, ReasoningDelta
from lhrm_client._retry import RetryRule, server_hint_s


@pytest.fixture(params=["sync", "async"])
def shell(request) -> Shell:
    return Shell(request.param == "async")


@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_passing_failures_are_retried(shell, status):
    script = Script(failing(status, **{"retry-after-ms": "1"}), ok())
    assert shell.chat(script, "q").answer == "42"
    assert len(script.requests) == 2
    script = Script(failing(status, **{"retry-after-ms": "1"}), stream_ok())
    assert shell.stream(script, "q")[-1].result.answer == "42"
    assert len(script.requests) == 2


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 413])
def test_lasting_failures_are_not_retried(shell, status):
    script = Script(failing(status, **{"retry-after-ms": "1"}), ok())
    with pytest.raises(lhrm_client.StatusError):
        shell.chat(script, "q")
    assert len(script.requests) == 1


def test_retries_are_bounded(shell):
    script = Script(failing(503, **{"retry-after-ms": "1"}))
    with pytest.raises(lhrm_client.OverloadedError):
        shell.chat(script, "q", client={"max_retries": 3})
    assert len(script.requests) == 4


def test_connect_failures_are_retried_and_sent_requests_are_not(shell, monkeypatch):
    monkeypatch.setattr("lhrm_client._retry._BASE_S", 0.001)
    script = Script(httpx.ConnectError("refused"), httpx.ConnectTimeout(""), ok())
    assert shell.chat(script, "q").answer == "42"
    for failure in (httpx.ReadTimeout(""), httpx.RemoteProtocolError("gone")):
        script = Script(failure, ok())
        with pytest.raises(lhrm_client.TransportError):
            shell.chat(script, "q")
        assert len(script.requests) == 1


def test_failure_after_the_first_event_is_not_retried(shell):
    broken = [*FRAMES[:3], b'data: {"error": {"message": "engine failed", "code": "engine"}}\n\n', FRAMES[-1]]
    script = Script(stream_ok(broken), stream_ok())
    with pytest.raises(lhrm_client.StreamError, match="engine failed") as caught:
        shell.stream(script, "q")
    assert (caught.value.code, caught.value.request_id, caught.value.status) == ("engine", "req-1", 200)
    assert len(script.requests) == 1


def test_events_in_the_chunk_of_an_error_come_before_it(shell):
    broken = [*FRAMES[:4], b'data: {"error": {"message": "engine failed"}}\n\n']
    with shell.session(Script(stream_ok(broken))) as lhrm:
        stream = lhrm.get("stream", "q")
        events = [stream.next() for _ in range(3)]
        with pytest.raises(lhrm_client.StreamError, match="engine failed"):
            stream.next()
    assert events == [ModeChosen("think", "model", 0.9, 0.5), ReasoningDelta("6*7"), AnswerDelta("42")]


def test_a_stream_that_just_ends_is_an_error(shell):
    script = Script(stream_ok(FRAMES[:-1]))
    with pytest.raises(lhrm_client.StreamInterruptedError):
        shell.stream(script, "q")
    assert len(script.requests) == 1


def test_no_wait_goes_beyond_the_deadline(shell):
    script = Script(failing(503, **{"retry-after": "5"}), ok())
    with pytest.raises(lhrm_client.OverloadedError):
        shell.chat(script, "q", deadline_s=2)
    assert len(script.requests) == 1


def test_a_deadline_that_is_over_sends_nothing(shell, monkeypatch):
    monkeypatch.setattr("lhrm_client._retry._BASE_S", 0.001)
    monkeypatch.setattr("lhrm_client._call.Deadline.left_s", lambda _: 0.0)
    script = Script(ok())
    with pytest.raises(lhrm_client.RequestTimeoutError, match="deadline_s=1"):
        shell.chat(script, "q", deadline_s=1)
    assert script.requests == []


class Cut(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body whose connection breaks after the given chunks."""

    def __init__(self, chunks: list[bytes]) -> None:
        self.chunks = chunks

    def __iter__(self):
        yield from self.chunks
        raise httpx.ReadError("connection reset")

    async def __aiter__(self):
        for chunk in self.chunks:
            yield chunk
        raise httpx.ReadError("connection reset")


def test_a_connection_cut_within_the_stream_is_an_error(shell):
    script = Script(httpx.Response(200, stream=Cut(FRAMES[:4])))
    with pytest.raises(lhrm_client.StreamInterruptedError, match="connection reset"):
        shell.stream(script, "q")
    assert len(script.requests) == 1


def test_a_connection_cut_after_the_end_marker_is_harmless(shell):
    events = shell.stream(Script(httpx.Response(200, stream=Cut(FRAMES))), "q")
    assert events[-1].result.answer == "42"


def test_a_cut_body_is_a_transport_error(shell):
    script = Script(httpx.Response(200, stream=Cut([b"{"])))
    with pytest.raises(lhrm_client.TransportError, match="connection reset"):
        shell.chat(script, "q")
    assert len(script.requests) == 1


NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "9"}, 9.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "later"}, None),
        ({"retry-after": "Thu, 01 Jan 2026 00:00:07 GMT"}, 7.0),
        ({"retry-after": "Thu, 01 Jan 2026 00:00:07"}, 7.0),
        ({"retry-after": "Wed, 31 Dec 2025 23:00:00 GMT"}, 0.0),
    ],
)
def test_server_hint(headers, seconds):
    assert server_hint_s(headers, NOW) == seconds


def test_backoff_is_capped_and_jittered():
    rule, rng = RetryRule(max_retries=10), random.Random(0)
    waits = [rule.delay_s(attempt, {}, rng) for attempt in range(10)]
    for attempt, wait_s in enumerate(waits):
        ceiling = min(8.0, 0.5 * 2**attempt)
        assert ceiling / 2 <= wait_s <= ceiling
    assert len({wait_s / min(8.0, 0.5 * 2**i) for i, wait_s in enumerate(waits)}) == 10
    assert rule.delay_s(10, {}, rng) is None


def test_hint_is_a_lower_bound_and_one_beyond_the_cap_ends_the_retries():
    rule, rng = RetryRule(max_retries=1, hint_cap_s=60), random.Random(0)
    assert all(3.0 <= rule.delay_s(0, {"retry-after": "3"}, rng) <= 3.3 for _ in range(50))
    assert rule.delay_s(0, {"retry-after": "61"}, rng) is None
