"""What `deadline_s` and `timeout` limit, on a real socket whose server sends bit by bit."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time

import httpx
import lhrm_client
import pytest
from client_shell import BODY, FRAMES, Script, Shell, ok
from lhrm_client import LHRM, AsyncLHRM, Finished, RequestTimeoutError, StreamInterruptedError, StreamTimeoutError
from trickling import head, measured, slowly, trickling

WHOLE = json.dumps(BODY).encode()
LENGTH = f"Content-Length: {len(WHOLE)}"
ERROR = b'{"error": {"message": "full"}}'
# Far more than the deadline of a test, so that only the deadline can end it.
MANY, PAUSE_S = 30, 0.1
DEADLINE_S = 0.5
# What a loaded machine may add.
SLACK_S = 1.0


@pytest.fixture(params=["sync", "async"])
def asynchronous(request) -> bool:
    return request.param == "async"


def ask(asynchronous: bool, url: str, method: str = "chat", **settings):
    client = {"model": "m", "max_retries": 0, **settings}
    return Shell(asynchronous, url).run(None, method, "q", client=client, deadline_s=DEADLINE_S)


def on_time():
    return measured(DEADLINE_S - 0.01, DEADLINE_S + SLACK_S)


BODIES = {
    "length": [head("200 OK", LENGTH), *slowly(WHOLE, MANY, PAUSE_S)],
    "without a length": [head(), *slowly(WHOLE, MANY, PAUSE_S)],
    "error": [head("503 Full", f"Content-Length: {len(ERROR)}"), *slowly(ERROR, MANY, PAUSE_S)],
    "silent": [head("200 OK", LENGTH), 0.4, WHOLE[:9], MANY * PAUSE_S],
    "silent from the start": [MANY * PAUSE_S],
    "headers late": [0.4, head("200 OK", LENGTH), MANY * PAUSE_S],
}


@pytest.mark.parametrize("answer", BODIES.values(), ids=BODIES)
def test_a_whole_answer_that_trickles_ends_at_the_deadline(asynchronous, answer):
    with (
        trickling(answer) as url,
        on_time(),
        pytest.raises(RequestTimeoutError, match=r"did not answer within deadline_s=0\.5"),
    ):
        ask(asynchronous, url)


def test_headers_that_trickle_end_at_the_deadline():
    # Not in LHRM: httpx gives a thread nothing to stop before the headers are there.
    with (
        trickling([*slowly(head("200 OK", LENGTH), MANY, PAUSE_S), WHOLE]) as url,
        on_time(),
        pytest.raises(RequestTimeoutError, match=r"deadline_s=0\.5"),
    ):
        ask(True, url)


def test_a_model_list_that_trickles_counts(asynchronous):
    with trickling(BODIES["length"]) as url, on_time(), pytest.raises(RequestTimeoutError):
        ask(asynchronous, url, model=None)


STREAMS = {
    "silent after a byte": [head(), 0.4, FRAMES[0], MANY * PAUSE_S],
    "keep-alive comments": [head(), FRAMES[0], *slowly(b":\n\n" * MANY, MANY, PAUSE_S)],
}


@pytest.mark.parametrize("answer", STREAMS.values(), ids=STREAMS)
def test_a_stream_ends_at_the_deadline(asynchronous, answer):
    with trickling(answer) as url, on_time(), pytest.raises(StreamTimeoutError, match=r"deadline_s=0\.5 is over"):
        ask(asynchronous, url, "stream")


def test_what_follows_the_end_marker_is_left_at_the_deadline(asynchronous):
    with trickling([head(), *FRAMES, *slowly(b":\n\n" * MANY, MANY, PAUSE_S)]) as url, on_time():
        events = ask(asynchronous, url, "stream")
    assert isinstance(events[-1], Finished)


def test_a_stream_within_its_deadline_is_whole(asynchronous):
    with trickling([head(), *[step for frame in FRAMES for step in (0.02, frame)]]) as url:
        events = ask(asynchronous, url, "stream")
    assert events[-1].result.answer == "42"


def test_a_connection_that_breaks_before_the_deadline_is_no_time_out(asynchronous):
    with trickling([head("200 OK", "Transfer-Encoding: chunked"), b"5\r\n"]) as url:
        with pytest.raises(lhrm_client.TransportError) as caught:
            ask(asynchronous, url)
        with pytest.raises(StreamInterruptedError) as interrupted:
            ask(asynchronous, url, "stream")
    assert type(caught.value) is lhrm_client.TransportError
    assert type(interrupted.value) is StreamInterruptedError


def test_the_deadline_of_a_call_that_is_over_leaves_its_connection_alone():
    """The connection serves the next call beyond the deadline of the first."""
    answer = f"HTTP/1.1 200 OK\r\n{LENGTH}\r\n\r\n".encode() + WHOLE
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                for pause_s in (0, 0.8):
                    connection.recv(65536)
                    time.sleep(pause_s)
                    connection.sendall(answer)

        server = threading.Thread(target=serve)
        server.start()
        with LHRM(f"http://127.0.0.1:{listener.getsockname()[1]}", model="m", max_retries=0) as lhrm:
            assert lhrm.chat("q", deadline_s=0.4).answer == "42"
            assert lhrm.chat("q").answer == "42"
        server.join(timeout=10)


@pytest.mark.parametrize("answer", [BODIES["length"], BODIES["silent from the start"]], ids=["body", "headers"])
def test_a_call_cut_by_its_deadline_gives_its_connection_back(asynchronous, answer, monkeypatch):
    for shell in ("_client", "_async_client"):
        monkeypatch.setattr(f"lhrm_client.{shell}.LIMITS", httpx.Limits(max_connections=1))
    with (
        trickling(answer, answer, [head("200 OK", LENGTH), WHOLE]) as url,
        Shell(asynchronous, url).session(model="m", max_retries=0) as lhrm,
    ):
        for _ in range(2):
            with pytest.raises(RequestTimeoutError):
                lhrm.do("chat", "q", deadline_s=0.1)
        assert lhrm.do("chat", "q", deadline_s=5).answer == "42"


def test_no_thread_is_left_of_a_deadline():
    with trickling([head("200 OK", LENGTH), WHOLE]) as url:
        before = threading.active_count()
        for _ in range(3):
            Shell(False, url).run(None, "chat", "q", client={"model": "m"}, deadline_s=60)
        end_s = time.monotonic() + 5
        while any(isinstance(thread, threading.Timer) for thread in threading.enumerate()):
            assert time.monotonic() < end_s, (before, threading.enumerate())
            time.sleep(0.01)


def test_limits_of_a_step_are_what_is_left_when_it_begins(asynchronous):
    script = Script(ok())
    settings = {"timeout": httpx.Timeout(9, connect=0.2, pool=None)}
    Shell(asynchronous).chat(script, "q", deadline_s=0.5, client=settings)
    limits = script.requests[0].extensions["timeout"]
    assert limits["connect"] == 0.2
    first = limits["read"]
    time.sleep(0.1)
    assert limits["read"] <= first - 0.1
    assert 0 < limits["pool"] < 0.4
    time.sleep(0.5)
    # A socket takes 0 for "do not wait" and refuses less.
    assert set(limits.values()) == {0.001}


@pytest.mark.parametrize(
    ("timeout", "limits"),
    [
        (None, {"connect": 5, "read": 600, "write": 600, "pool": None}),
        (60, {"connect": 5, "read": 60, "write": 60, "pool": None}),
        (3, {"connect": 3, "read": 3, "write": 3, "pool": None}),
        (httpx.Timeout(60), {"connect": 60, "read": 60, "write": 60, "pool": 60}),
    ],
)
def test_limits_without_a_deadline(asynchronous, timeout, limits):
    script = Script(ok())
    Shell(asynchronous).chat(script, "q", client={} if timeout is None else {"timeout": timeout})
    assert dict(script.requests[0].extensions["timeout"]) == limits


class Unreachable(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Where a connection is never made: waits for as long as it may."""

    def handle_request(self, request):
        time.sleep(request.extensions["timeout"]["connect"])
        raise httpx.ConnectTimeout("")

    async def handle_async_request(self, request):
        await asyncio.sleep(request.extensions["timeout"]["connect"] + 0.001)
        raise httpx.ConnectTimeout("")


@pytest.mark.parametrize("max_retries", [0, 2])
def test_a_connection_cut_by_the_deadline_is_a_time_out(asynchronous, max_retries):
    settings = {"transport": Unreachable(), "model": "m", "max_retries": max_retries}
    with on_time(), pytest.raises(RequestTimeoutError, match=r"deadline_s=0\.5"):
        Shell(asynchronous).run(None, "chat", "q", client=settings, deadline_s=DEADLINE_S)


def test_a_connection_cut_by_its_own_limit_is_not_made(asynchronous):
    settings = {"transport": Unreachable(), "model": "m", "max_retries": 0, "timeout": 0.1}
    with pytest.raises(lhrm_client.ConnectFailedError):
        Shell(asynchronous).run(None, "chat", "q", client=settings, deadline_s=60)


async def test_waiting_for_one_of_our_own_connections_is_no_silence_of_the_server(monkeypatch):
    monkeypatch.setattr("lhrm_client._async_client.LIMITS", httpx.Limits(max_connections=1))
    with trickling([head(), *slowly(WHOLE, 6, 0.15)]) as url:
        async with AsyncLHRM(url, model="m", max_retries=0, timeout=0.4) as lhrm:
            results = await asyncio.gather(lhrm.chat("a"), lhrm.chat("b"))
            assert [result.answer for result in results] == ["42", "42"]
            first = asyncio.create_task(lhrm.chat("a"))
            await asyncio.sleep(0.05)
            with pytest.raises(RequestTimeoutError, match=r"deadline_s=0\.2"):
                await lhrm.chat("b", deadline_s=0.2)
            await first


def test_waiting_threads_for_one_of_our_own_connections(monkeypatch):
    monkeypatch.setattr("lhrm_client._client.LIMITS", httpx.Limits(max_connections=1))
    answers = []
    with (
        trickling([head(), *slowly(WHOLE, 6, 0.15)]) as url,
        LHRM(url, model="m", max_retries=0, timeout=0.4) as lhrm,
    ):
        threads = [threading.Thread(target=lambda: answers.append(lhrm.chat("q").answer)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == ["42", "42"]
