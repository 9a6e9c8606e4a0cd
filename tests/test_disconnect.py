import asyncio

import pytest
from lhrm_server.body import ClientGoneError
from lhrm_server.disconnect import while_connected


async def stays():
    await asyncio.Event().wait()


def leaves_after(*messages):
    queue = [*messages, {"type": "http.disconnect"}]

    async def receive():
        await asyncio.sleep(0)
        return queue.pop(0)

    return receive


class Work:
    def __init__(self, error=None):
        self.error = error
        self.ending = None

    async def run(self, endless=False):
        try:
            await (asyncio.Event().wait() if endless else asyncio.sleep(0))
            if self.error is not None:
                raise self.error
            self.ending = "done"
        except asyncio.CancelledError:
            # Cleaning up takes time, and the caller waits for it.
            await asyncio.sleep(0.01)
            self.ending = "cancelled"
            raise


async def test_work_that_ends_ends():
    work = Work()
    await while_connected(stays, work.run())
    assert work.ending == "done"


async def test_errors_of_the_work_are_raised():
    with pytest.raises(ZeroDivisionError):
        await while_connected(stays, Work(ZeroDivisionError()).run())


async def test_work_is_over_when_the_client_is_gone():
    work = Work()
    with pytest.raises(ClientGoneError):
        await while_connected(leaves_after({"type": "http.request", "body": b""}), work.run(endless=True))
    assert work.ending == "cancelled"


async def test_work_is_over_when_the_server_cancels():
    work = Work()
    outer = asyncio.create_task(while_connected(stays, work.run(endless=True)))
    await asyncio.sleep(0.01)
    outer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await outer
    assert work.ending == "cancelled"


async def test_a_broken_receive_counts_as_gone():
    async def broken():
        raise OSError

    work = Work()
    with pytest.raises(ClientGoneError):
        await while_connected(broken, work.run(endless=True))
    assert work.ending == "cancelled"
