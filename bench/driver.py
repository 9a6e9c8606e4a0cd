"""Load on one server: closed-loop streams of chat requests, timed from outside."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

import aiohttp
from lhrm_loadtest.wire import ReplyError, StreamReader

from bench.servers import MODEL, Server

MAX_TOKENS = 120


@dataclass(frozen=True)
class Cell:
    """One setting: requests at a time, the mode that is asked for, and whether replies are streamed."""

    streams: int
    mode: str
    stream: bool


@dataclass(frozen=True)
class Timed:
    """One request: completion tokens, and seconds to the first token (None without streaming) and to the end."""

    tokens: int
    first_s: float | None
    total_s: float


@dataclass(frozen=True)
class Measured:
    """What one cell gave on one server; milliseconds are medians over its requests."""

    requests: int
    tokens: int
    seconds: float
    first_token_ms: float | None
    inter_token_ms: float | None
    duration_ms: float
    cpu_ms_per_request: float


def body(server: Server, cell: Cell, model: str, question: str) -> dict[str, object]:
    """Return a chat request; bare vLLM is told the mode by its chat template, and chooses by itself without one."""
    fields: dict[str, object] = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
        "max_tokens": MAX_TOKENS,
        "stream": cell.stream,
    }
    if cell.stream:
        fields["stream_options"] = {"include_usage": True}
    if cell.mode != "auto":
        fields["chat_template_kwargs"] = (
            {"lhrm_mode": cell.mode} if server.bare else {"enable_thinking": cell.mode == "think"}
        )
    return fields


async def measure(server: Server, cell: Cell, questions: Sequence[str], requests: int, model: str = MODEL) -> Measured:
    """Send `requests` requests, `cell.streams` at a time. Raises RuntimeError on any error."""
    waiting = zip(range(requests), cycle(questions), strict=False)
    timed: list[Timed] = []
    connector = aiohttp.TCPConnector(limit=cell.streams)
    async with aiohttp.ClientSession(connector=connector) as session:
        cpu_s, start_s = server.cpu_s(), time.perf_counter()
        await asyncio.gather(*(_stream(session, server, cell, model, waiting, timed) for _ in range(cell.streams)))
        seconds, cpu_s = time.perf_counter() - start_s, server.cpu_s() - cpu_s
    firsts = [one.first_s for one in timed if one.first_s is not None]
    gaps = [(t.total_s - t.first_s) / (t.tokens - 1) for t in timed if t.first_s is not None and t.tokens > 1]
    return Measured(
        requests=len(timed),
        tokens=sum(one.tokens for one in timed),
        seconds=seconds,
        first_token_ms=1000 * statistics.median(firsts) if firsts else None,
        inter_token_ms=1000 * statistics.median(gaps) if gaps else None,
        duration_ms=1000 * statistics.median(one.total_s for one in timed),
        cpu_ms_per_request=1000 * cpu_s / len(timed),
    )


async def _stream(
    session: aiohttp.ClientSession,
    server: Server,
    cell: Cell,
    model: str,
    waiting: Iterator[tuple[int, str]],
    timed: list[Timed],
) -> None:
    for _, question in waiting:
        timed.append(await _ask(session, server, body(server, cell, model, question)))


async def _ask(session: aiohttp.ClientSession, server: Server, fields: dict[str, object]) -> Timed:
    start_s = time.perf_counter()
    async with session.post(f"{server.url}/v1/chat/completions", json=fields) as response:
        if response.status != 200:
            raise RuntimeError(f"{server.name}: {response.status} {(await response.text())[:300]}")
        if not fields["stream"]:
            reply = await response.json()
            return Timed(reply["usage"]["completion_tokens"], None, time.perf_counter() - start_s)
        reader = StreamReader()
        try:
            async for line in response.content:
                reader.feed(line, time.perf_counter())
            tokens = reader.reply().completion_tokens
        except ReplyError as exc:
            raise RuntimeError(f"{server.name}: {exc}") from exc
        if reader.first_token is None:
            raise RuntimeError(f"{server.name}: a stream without text")
        return Timed(tokens, reader.first_token - start_s, time.perf_counter() - start_s)
