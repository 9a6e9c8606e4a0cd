"""A server that answers every chat request with the same stream, ready made: what is measured against it is the caller.

``python -m bench.canned PORT TOKENS GAP_MS [FILE]``: TOKENS events, GAP_MS milliseconds between two of them; a line of
FILE has the milliseconds from one request to its last token, as the server saw them.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nX-Request-Id: canned\r\n\r\n"
)
MODELS = json.dumps({"data": [{"id": "canned"}]}).encode()


def event(fields: dict[str, object]) -> bytes:
    """Return one event of a stream as a chunk of an HTTP body."""
    return chunk(b"data: " + json.dumps({"id": "chatcmpl-0", "model": "canned", **fields}).encode() + b"\n\n")


def chunk(data: bytes) -> bytes:
    """Return a chunk of a chunked HTTP body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def token(text: str) -> bytes:
    """Return the event of one token, as long as those of the gateway."""
    return event(
        {
            "object": "chat.completion.chunk",
            "created": 1_700_000_000,
            "choices": [{"index": 0, "delta": {"content": text}, "logprobs": None, "finish_reason": None}],
            "usage": None,
        }
    )


def ending(tokens: int) -> bytes:
    """Return what follows the last token."""
    usage = {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": 10 + tokens}
    last = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    return last + event({"choices": [], "usage": usage}) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Canned:
    """Answers chat requests, and gives the seconds that each took to `on_answer`; else it gives the list of models."""

    def __init__(self, tokens: int, gap_s: float, on_answer: Callable[[float], None] = lambda _: None) -> None:
        self._tokens = tokens
        self._gap_s = gap_s
        self._on_answer = on_answer
        self._token, self._ending = token("word "), ending(tokens)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection until it is closed."""
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await self._answer(head.lower(), reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not head.startswith(b"post"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(MODELS), MODELS))
            return
        length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.partition(b":")[2]))
        start_s = time.perf_counter()
        writer.write(HEAD)
        for _ in range(self._tokens):
            await asyncio.sleep(self._gap_s)
            writer.write(self._token)
        self._on_answer(time.perf_counter() - start_s)
        writer.write(self._ending)
        await writer.drain()


def noted_in(path: Path) -> Callable[[float], None]:
    """Return what appends seconds to a file, in milliseconds, at once: the process is ended by a signal."""
    file = path.open("w", encoding="utf-8", buffering=1)
    return lambda seconds: print(f"{1000 * seconds:.3f}", file=file)


async def main(canned: Canned, port: int) -> None:
    """Serve on the loopback address until the process is ended."""
    server = await asyncio.start_server(canned.serve, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    port, tokens, gap_ms, *files = sys.argv[1:]
    noted = [noted_in(Path(file)) for file in files]
    asyncio.run(main(Canned(int(tokens), float(gap_ms) / 1000, *noted), int(port)))
