"""Turns at work in threads, for what takes too long for the event loop."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from server.http.api_error import queue_full

T = TypeVar("T")


class Turns:
    """Runs functions in threads: a few at once, whatever the number of requests; others wait for their turn."""

    def __init__(self, *, at_once: int, max_waiting: int) -> None:
        """
        Args:
            max_waiting: the most that may wait; more are refused as if the queue were full.
        """
        self._max_waiting = max_waiting
        self._num_waiting = 0
        self._free = asyncio.Semaphore(at_once)

    async def run(self, function: Callable[[], T]) -> T:
        """The result of `function`, once it has had its turn.

        Raises:
            APIError: too many wait.
        """
        if self._free.locked() and self._num_waiting >= self._max_waiting:
            raise queue_full()
        self._num_waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._num_waiting -= 1
        work = asyncio.create_task(asyncio.to_thread(_raising_exceptions, function))
        work.add_done_callback(self._end)
        # A thread cannot be stopped: a client that goes away leaves its turn only when the thread is done.
        return await asyncio.shield(work)

    def _end(self, work: asyncio.Task[Any]) -> None:
        self._free.release()
        if not work.cancelled():
            work.exception()  # seen by whoever waits, if anybody still does


def _raising_exceptions(function: Callable[[], T]) -> T:
    """The result of `function`; a Rust library panics with an error that is no `Exception` and would end the loop."""
    try:
        return function()
    except Exception:
        raise
    except BaseException as panic:
        raise RuntimeError("a library panicked") from panic
