import asyncio

import pytest

from server.replies.interleave import interleaved


class Stream:
    """Yields each item, or raises it, after its delay; remembers whether it was closed."""

    def __init__(self, items):
        self.items = items
        self.is_closed = False

    async def __call__(self):
        try:
            for delay, item in self.items:
                await asyncio.sleep(delay)
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.is_closed = True


async def collect(streams, limit=None):
    items = interleaved([stream() for stream in streams])
    collected = []
    try:
        async for pair in items:
            collected.append(pair)
            if len(collected) == limit:
                break
    finally:
        await items.aclose()
    return collected


def test_items_come_as_they_happen_each_with_the_index_of_its_stream():
    slow, fast = Stream([(0.05, "a"), (0.05, "b")]), Stream([(0, "x"), (0, "y")])
    collected = asyncio.run(collect([slow, fast]))
    assert collected == [(1, "x"), (1, "y"), (0, "a"), (0, "b")]


def test_leaving_early_closes_all_streams():
    streams = [Stream([(0, number) for number in range(9)]) for _ in range(3)]
    asyncio.run(collect(streams, limit=4))
    assert all(stream.is_closed for stream in streams)


def test_an_exception_in_one_stream_ends_them_all():
    failing, endless = Stream([(0.02, ValueError("broken"))]), Stream([(0.01, number) for number in range(999)])
    with pytest.raises(ValueError, match="broken"):
        asyncio.run(collect([failing, endless]))
    assert failing.is_closed and endless.is_closed
