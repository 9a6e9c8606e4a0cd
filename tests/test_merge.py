"""Several streams as one."""

import asyncio
from contextlib import aclosing

import pytest
from lhrm_server.merge import merged


class Source:
    """A stream of numbered items; it remembers whether it was closed."""

    def __init__(self, name, count, fails=False, hangs=False):
        self.name, self.count, self.fails, self.hangs = name, count, fails, hangs
        self.closed = False

    async def items(self):
        try:
            for number in range(self.count):
                await asyncio.sleep(0)
                yield self.name, number
            if self.fails:
                raise ZeroDivisionError
            if self.hangs:
                await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.closed = True


async def test_every_item_comes_and_each_stream_keeps_its_order():
    sources = [Source("a", 3), Source("b", 0), Source("c", 50)]
    items = [item async for item in merged([source.items() for source in sources])]
    assert len(items) == 53
    for source in sources:
        assert [number for name, number in items if name == source.name] == list(range(source.count))
    assert all(source.closed for source in sources)


async def test_streams_run_side_by_side():
    hanging = Source("slow", 0, hangs=True)
    async with aclosing(merged([hanging.items(), Source("fast", 2).items()])) as items:
        assert [await anext(items), await anext(items)] == [("fast", 0), ("fast", 1)]
    assert hanging.closed


async def test_a_failure_comes_after_what_was_given_and_closes_the_others():
    bad, hanging = Source("bad", 2, fails=True), Source("other", 1, hangs=True)
    seen = []

    async def collect():
        async for item in merged([bad.items(), hanging.items()]):
            seen.append(item)

    with pytest.raises(ZeroDivisionError):
        await collect()
    assert [number for name, number in seen if name == "bad"] == [0, 1]
    assert hanging.closed


@pytest.mark.parametrize("taken", [0, 1, 2])
async def test_closing_closes_every_stream_before_it_returns(taken):
    sources = [Source(name, 1, hangs=True) for name in "ab"]
    items = merged([source.items() for source in sources])
    for _ in range(taken):
        await anext(items)
    await items.aclose()
    assert [source.closed for source in sources] == [taken > 0] * 2


async def test_cancelling_closes_every_stream():
    sources = [Source(name, 0, hangs=True) for name in "abc"]

    async def collect():
        return [item async for item in merged([source.items() for source in sources])]

    task = asyncio.create_task(collect())
    for _ in range(5):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert all(source.closed for source in sources)
