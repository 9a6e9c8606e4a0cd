"""One event stream on one connection: headers as late as allowed, whole frames only, keep-alive comments."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from starlette.types import Send

from .wire import KEEP_ALIVE

Headers = Sequence[tuple[str, str]]
SSE_HEADERS: Headers = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    # nginx would otherwise collect the stream before it passes it on.
    ("x-accel-buffering", "no"),
)


class EventStream:
    """Writes frames; the headers leave with the first one, or with the first keep-alive comment."""

    def __init__(self, send: Send, headers: Headers) -> None:
        self._send = send
        self._headers = [*SSE_HEADERS, *headers]
        self._lock = asyncio.Lock()
        self._last_sent_s = time.monotonic()
        self.opened = False

    async def open(self) -> None:
        """Send status and headers, once."""
        async with self._lock:
            await self._open()

    async def write(self, frames: Sequence[bytes]) -> None:
        """Send whole frames."""
        async with self._lock:
            await self._open()
            if frames:
                await self._body(b"".join(frames))

    async def close(self, last: bytes) -> None:
        """Send the last frame and end the response."""
        async with self._lock:
            await self._open()
            await self._send({"type": "http.response.body", "body": last, "more_body": False})

    @asynccontextmanager
    async def kept_alive(self, hold_s: float, interval_s: float) -> AsyncIterator[None]:
        """Open the stream after `hold_s` at the latest; then never be silent for longer than `interval_s`."""
        keeper = asyncio.create_task(self._keep_alive(hold_s, interval_s))
        try:
            yield
        finally:
            keeper.cancel()
            await asyncio.wait({keeper})
            if not keeper.cancelled():
                # The connection failed under a comment; the disconnect itself is seen by whoever receives.
                keeper.exception()

    async def _keep_alive(self, hold_s: float, interval_s: float) -> None:
        await asyncio.sleep(hold_s)
        if not self.opened:
            await self.write([KEEP_ALIVE])
        while True:
            quiet_s = time.monotonic() - self._last_sent_s
            if quiet_s >= interval_s:
                await self.write([KEEP_ALIVE])
                quiet_s = 0.0
            await asyncio.sleep(interval_s - quiet_s)

    async def _open(self) -> None:
        if not self.opened:
            self.opened = True
            headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self._headers]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def _body(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        self._last_sent_s = time.monotonic()
