"""The gateway benchmark's arithmetic, and its driver against a scripted gateway."""

import json

import pytest
from conftest import serve_on_socket
from gateway_fixtures import MODEL, load_tokenizer, scripted
from lhrm_server.app import create_app
from lhrm_server.engine_fake import FakeEngine
from lhrm_server.settings import Settings

from bench.driver import Cell, measure
from bench.gateway import cells, done_already, plan
from bench.report import report
from bench.servers import Server


@pytest.fixture
def live(loop_thread):
    """A scripted gateway on a socket: its URL and the records that it keeps."""
    tokenizer, records = load_tokenizer(), []
    engine = FakeEngine(tokenizer, scripted(tokenizer))
    app = create_app(Settings(MODEL), engine, tokenizer, on_record=records.append)
    served = serve_on_socket(app, loop_thread)
    yield Server("scripted", next(served), False, ()), records
    next(served, None)


def row(server, repeat, seconds, streams=64, mode="think", first=10.0, gap=5.0):
    return {
        "repeat": repeat,
        "cell": {"streams": streams, "mode": mode, "stream": True},
        "server": server,
        "requests": 10,
        "tokens": 100,
        "seconds": seconds,
        "first_token_ms": first,
        "inter_token_ms": gap,
        "duration_ms": 50.0,
        "cpu_ms_per_request": 8.0,
    }


def test_ratios_are_taken_within_a_repeat_and_their_median_is_told(tmp_path):
    # Embedded needs 1, 2, 4 seconds for what takes vLLM 2, 2, 2: ratios 2, 1, .5.
    rows = [row("vllm", i, 2.0) for i in range(3)] + [row("embedded", i, 2.0**i) for i in range(3)]
    rows += [row("remote", 0, 4.0), row("embedded", 0, 1.0, streams=1, mode="auto", first=16.0)]
    rows += [row("embedded", 0, 1.0, streams=1, first=10.0, gap=7.0)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    text = report(path)
    assert "| embedded | 64 | think | yes | 1.00 [0.50, 2.00] | 1.00 [0.50, 2.00] | 1.00 [1.00, 1.00] |" in text
    last = dict(pair.split("=") for pair in text.splitlines()[-1].split())
    assert last == {
        "embedded_forced_64": "1.00",
        "embedded_forced_1": "nan",
        "remote_forced_64": "0.50",
        "remote_forced_1": "nan",
        "auto_first_token_extra_ms": "6.0",
        "decode_step_ms": "7.0",
    }


def test_every_server_goes_first_in_turn():
    servers = [Server(name, "", False, ()) for name in "abc"]
    firsts = [next(server.name for repeat, _, server in plan(3, servers) if repeat == wanted) for wanted in range(3)]
    assert firsts == ["a", "b", "c"]
    assert sum(1 for _ in plan(2, servers)) == 2 * 3 * len(cells())


def test_a_stopped_run_goes_on_behind_its_last_whole_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row("vllm", 0, 1.0)) + "\n" + json.dumps(row("vllm", 1, 1.0))[:40])
    assert done_already(path) == {(0, Cell(64, "think", True), "vllm")}
    assert path.read_text().count("\n") == 1


@pytest.mark.parametrize("stream", [True, False])
async def test_the_driver_counts_what_a_server_gives(live, stream):
    server, records = live
    measured = await measure(server, Cell(3, "no_think", stream), ["2+3?"], 7, MODEL)
    (tokens,) = {record.counts.completion for record in records}
    assert (measured.requests, measured.tokens) == (7, 7 * tokens)
    assert len(records) == 7
    assert (measured.first_token_ms is not None) == stream


async def test_an_error_ends_the_measurement(live):
    with pytest.raises(RuntimeError, match="scripted: 404"):
        await measure(live[0], Cell(1, "auto", True), ["2+3?"], 1, "another")
