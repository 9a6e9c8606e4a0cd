"""A TCP proxy that hands the body of a completion on in pieces of its own, or cuts it, or falls silent."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

TORTURED = b"POST /v1/completions "


@dataclass(frozen=True)
class Torture:
    """What happens to one body: cut into `pieces`, then `ending`.

    complete: the response ends as it should. close: the connection ends in order, without the end of the body.
    reset: it ends by a TCP reset. stall: it stays open in silence. With `framed` False the body has no length and no
    chunks: only the end of the connection ends it.
    """

    pieces: Callable[[bytes], Sequence[bytes]] = lambda body: [body]
    ending: str = "complete"
    framed: bool = True


PLAIN = Torture()


class TortureProxy:
    """Proxies whole exchanges, one connection each; `torture` is for completions and may change between calls.

    The next `dropped` completions are read and get no answer at all: their connection is closed.
    """

    def __init__(self, target: str) -> None:
        parts = urlsplit(target)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._tasks: set[asyncio.Task[None]] = set()
        self.torture = PLAIN
        self.dropped = 0
        self.bodies: list[bytes] = []
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator["TortureProxy"]:
        """Listen on a free port of the loopback address."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._exchange(reader, writer)
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        content = await reader.readexactly(_content_length(head))
        if head.startswith(TORTURED) and self.dropped > 0:
            self.dropped -= 1
            return
        upstream_reader, upstream = await asyncio.open_connection(self._host, self._port)
        try:
            upstream.write(_with_close(head) + content)
            response_head = await upstream_reader.readuntil(b"\r\n\r\n")
            body = await _body(response_head, upstream_reader)
        finally:
            upstream.close()
        if not head.startswith(TORTURED):
            writer.write(_new_head(response_head, f"Content-Length: {len(body)}") + body)
            await writer.drain()
            return
        self.bodies.append(body)
        await self._hand_on(response_head, body, writer)

    async def _hand_on(self, response_head: bytes, body: bytes, writer: asyncio.StreamWriter) -> None:
        torture = self.torture
        writer.write(_new_head(response_head, "Transfer-Encoding: chunked" if torture.framed else None))
        for piece in torture.pieces(body):
            if piece:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if torture.framed else piece)
                await writer.drain()
                # The reader gets its turn before the next piece, so that pieces do not melt together.
                await asyncio.sleep(0)
                await asyncio.sleep(0)
        if torture.ending == "stall":
            await asyncio.Event().wait()
        elif torture.ending == "reset":
            writer.transport.abort()
        elif torture.ending == "complete" and torture.framed:
            writer.write(b"0\r\n\r\n")
            await writer.drain()


def _content_length(head: bytes) -> int:
    return int(_header(head, b"content-length") or 0)


def _header(head: bytes, name: bytes) -> bytes | None:
    for line in head.split(b"\r\n")[1:]:
        key, _, value = line.partition(b":")
        if key.strip().lower() == name:
            return value.strip()
    return None


def _with_close(head: bytes) -> bytes:
    lines = [line for line in head.rstrip(b"\r\n").split(b"\r\n") if not line.lower().startswith(b"connection:")]
    return b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n"


def _new_head(head: bytes, length: str | None) -> bytes:
    dropped = (b"connection:", b"content-length:", b"transfer-encoding:")
    lines = [line for line in head.rstrip(b"\r\n").split(b"\r\n") if not line.lower().startswith(dropped)]
    added = [b"Connection: close", *([length.encode()] if length else [])]
    return b"\r\n".join([*lines, *added]) + b"\r\n\r\n"


async def _body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    """Read a whole body: chunked, of a given length, or up to the end of the connection."""
    if (_header(head, b"transfer-encoding") or b"").lower() == b"chunked":
        body = b""
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            await reader.readline()
        return body
    length = _header(head, b"content-length")
    return await (reader.readexactly(int(length)) if length is not None else reader.read())
