"""Runs work for a client and cancels it as soon as the client goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.types import Receive

from .body import ClientGoneError


async def while_connected(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end, raising what it raises. Raises ClientGoneError when the client left first.

    When this returns or raises, `work` is over: cancelled and awaited if it had not ended by itself.
    """
    job = asyncio.create_task(work)
    watcher = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({job, watcher}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        # No job is left half done when this task is itself cancelled, by a server that shuts down.
        gone = not job.done()
        for task in (job, watcher):
            task.cancel()
        await asyncio.wait({job, watcher})
        for task in (job, watcher):
            # Looked at, so that asyncio does not report it as lost.
            _ = task.cancelled() or task.exception()
    if gone:
        raise ClientGoneError
    job.result()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
