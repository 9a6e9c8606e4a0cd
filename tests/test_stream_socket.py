"""Streams, disconnects, keep-alive and back-pressure on a real socket."""

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx
import pytest
from conftest import serve_on_socket
from gateway_fixtures import CHAT, MODEL, body, eventually, frames, load_tokenizer, scripted
from lhrm_server.accounting import Ending, UsageRecord
from lhrm_server.app import create_app
from lhrm_server.engine_fake import FakeEngine
from lhrm_server.settings import Settings

TOKENIZER = load_tokenizer()


@dataclass
class Live:
    url: str
    engine: FakeEngine
    records: list[UsageRecord]
    app: object

    def count(self, name, **labels):
        value = self.app.state.gateway.metrics.registry.get_sample_value(name, {"model": MODEL, **labels})
        assert value is not None
        return value

    def connect(self, content: bytes, *, receive_buffer: int | None = None) -> socket.socket:
        """Send a raw request and return the connection."""
        place = urlsplit(self.url)
        link = socket.socket()
        if receive_buffer is not None:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        link.settimeout(10)
        link.connect((place.hostname, place.port))
        head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(content)}\r\n\r\n"
        link.sendall(head.encode() + content)
        return link


@pytest.fixture
def serve(loop_thread):
    @contextmanager
    def serving(script=None, *, max_model_len=512, **settings) -> Iterator[Live]:
        engine = FakeEngine(TOKENIZER, script or scripted(TOKENIZER), max_model_len=max_model_len)
        records: list[UsageRecord] = []
        app = create_app(Settings(MODEL, **settings), engine, TOKENIZER, on_record=records.append)
        server = serve_on_socket(app, loop_thread)
        try:
            yield Live(next(server), engine, records, app)
        finally:
            engine.kill()
            next(server, None)

    return serving


def stream_request(**fields):
    return json.dumps(body(stream=True, **fields)).encode()


def stalls(engine: FakeEngine) -> bool:
    before = engine.emitted_tokens
    time.sleep(0.5)
    return engine.emitted_tokens == before


def kill_from(loop_thread, engine):
    loop_thread.loop.call_soon_threadsafe(engine.kill)


def test_the_first_frame_arrives_before_the_last_is_made(serve, loop_thread):
    with (
        serve(scripted(TOKENIZER, hang_at=1)) as live,
        httpx.stream("POST", live.url + CHAT, json=body(stream=True), timeout=10) as response,
    ):
        assert response.headers["x-lhrm-mode"] == "think"
        chunks = response.iter_text()
        first = next(chunks)
        assert frames(first)[0]["choices"][0]["delta"]["role"] == "assistant"
        assert (live.engine.active, live.records) == (1, [])
        kill_from(loop_thread, live.engine)
        error, done = frames("".join(chunks))
        assert (error["error"]["code"], done) == ("engine_unavailable", "[DONE]")


@pytest.mark.parametrize(
    "script", [{"hang_decide": True}, {"hang_at": 0}, {"hang_at": 3}, {"delay_s": 0.05}, {"decide_delay_s": 30}]
)
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("n", [1, 3])
def test_a_client_that_goes_away_aborts_the_engine(serve, script, stream, n):
    # The decision is made once for all choices.
    choices = 1 if any("decide" in name for name in script) else n
    with serve(scripted(TOKENIZER, **script)) as live:
        link = live.connect(json.dumps(body(stream=stream, n=n)).encode())
        eventually(lambda: live.engine.active == choices)
        gone_s = time.monotonic()
        link.close()
        eventually(lambda: live.records)
        assert time.monotonic() - gone_s < 5
        assert (live.engine.active, live.engine.aborted) == (0, choices)
        assert [record.ended_by for record in live.records] == [Ending.ABORT]
        eventually(lambda: live.count("lhrm_client_disconnects_total") == 1)
        assert live.count("lhrm_in_flight_requests") == 0
        assert httpx.get(f"{live.url}/ready").status_code == 200


def test_a_client_that_goes_away_before_its_body_is_complete_leaves_no_record(serve):
    with serve() as live:
        place = urlsplit(live.url)
        link = socket.create_connection((place.hostname, place.port))
        link.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
        # The request is known to be in the app's hands only by the disconnect it then counts.
        time.sleep(0.1)
        link.close()
        eventually(lambda: live.count("lhrm_client_disconnects_total") == 1)
        assert (live.records, live.engine.requests) == ([], [])


def test_a_client_that_leaves_after_a_complete_stream_is_no_disconnect(serve):
    with serve() as live:
        assert httpx.post(live.url + CHAT, json=body(stream=True)).text.endswith("data: [DONE]\n\n")
        assert [record.ended_by for record in live.records] == [Ending.STOP]
        assert live.count("lhrm_client_disconnects_total") == 0


def test_headers_wait_for_the_first_event_then_comments_keep_the_stream_alive(serve):
    script = scripted(TOKENIZER, first_delay_s=1.2)
    with (
        serve(script, header_hold_s=0.15, keepalive_s=0.1) as live,
        httpx.stream("POST", live.url + CHAT, json=body(stream=True), timeout=10) as response,
    ):
        # Headers are here although the engine has not made a token.
        assert response.headers["x-lhrm-source"] == "model"
        assert live.engine.finished == 1, "only the decide call is over"
        text = "".join(response.iter_text())
    comments, _, _ = text.partition("data:")
    assert comments.count(": keep-alive\n\n") >= 2
    assert comments.replace(": keep-alive\n\n", "") == ""
    assert frames(text)[-1] == "[DONE]"


def test_a_quick_stream_has_no_comments(serve):
    with serve() as live:
        assert ": keep-alive" not in httpx.post(live.url + CHAT, json=body(stream=True)).text


def test_failure_after_the_headers_were_held_too_long_is_an_error_frame(serve):
    script = scripted(TOKENIZER, first_delay_s=0.3, fail_at=0)
    with serve(script, header_hold_s=0.05) as live:
        response = httpx.post(live.url + CHAT, json=body(stream=True))
    assert response.status_code == 200
    error, done = frames(response.text)
    assert (error["error"]["code"], done) == ("engine_error", "[DONE]")


def test_failure_within_the_hold_has_its_status(serve):
    with serve(scripted(TOKENIZER, first_delay_s=0.2, fail_at=0), header_hold_s=5) as live:
        assert httpx.post(live.url + CHAT, json=body(stream=True)).status_code == 500


def test_a_client_that_does_not_read_stops_the_engine_instead_of_filling_memory(serve):
    answer = tuple(TOKENIZER.encode_text("x y z ")) * 100_000
    script = scripted(TOKENIZER, p_think=0.0, no_think_ids=answer, chunks=(16,))
    with serve(script, max_model_len=1_000_000) as live:
        link = live.connect(stream_request(), receive_buffer=4096)
        eventually(lambda: live.engine.emitted_tokens > 1000)
        eventually(lambda: stalls(live.engine))
        assert (live.engine.active, live.records) == (1, []), "the whole answer went into buffers"
        link.close()
        eventually(lambda: live.records)
        (record,) = live.records
        assert record.ended_by is Ending.ABORT
        assert 1000 < record.counts.completion < len(answer)
        assert live.engine.aborted == 1


def test_a_body_that_is_too_large_is_a_413_and_the_server_goes_on(serve):
    with serve(max_body_bytes=100_000) as live:
        response = httpx.post(live.url + CHAT, content=b"x" * 3_000_000)
        assert (response.status_code, response.json()["error"]["code"]) == (413, "body_too_large")
        chunked = httpx.post(live.url + CHAT, content=iter([b"x" * 60_000] * 2))
        assert chunked.status_code == 413
        assert httpx.post(live.url + CHAT, json=body()).status_code == 200


def test_one_connection_serves_errors_streams_and_replies_in_turn(serve):
    with serve() as live, httpx.Client(base_url=live.url) as client:
        for _ in range(3):
            assert client.post(CHAT, json=body(temperature=3)).status_code == 400
            assert client.post(CHAT, json=body(stream=True)).text.endswith("[DONE]\n\n")
            assert client.post(CHAT, json=body()).status_code == 200
        assert len(live.records) == 6


def test_many_streams_at_once_do_not_mix(serve):
    with serve(scripted(TOKENIZER, delay_s=0.001)) as live:
        with ThreadPoolExecutor(16) as pool:
            texts = list(pool.map(lambda _: httpx.post(live.url + CHAT, json=body(stream=True)).text, range(32)))
        for text in texts:
            ids = {frame["id"] for frame in frames(text)[:-1]}
            assert len(ids) == 1
        assert len(live.records) == 32
