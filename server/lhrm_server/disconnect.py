"""Runs work for a client and cancels it as soon as the client goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.types import Receive

from .body import ClientGoneError


async def while_connected(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Run `work` to its end, raising what it raises. Raises ClientGoneError when the client left first.

    When this returns or raises, `work` is over: cancelled and awaited if it had not ended by itself. Cancelled
    from outside, by a server that stops, it passes the cancellation to `work` and raises what that makes of it.
    """
    job = asyncio.create_task(work)
    watcher = asyncio.create_task(_disconnected(receive))
    gone = False
    try:
        await asyncio.wait({job, watcher}, return_when=asyncio.FIRST_COMPLETED)
        gone = not job.done()
    except asyncio.CancelledError:
        # What `job` makes of it below counts: the cancellation, or an answer that says why there is none.
        pass
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
