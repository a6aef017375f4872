"""A computation of the model's that takes turns with the denoising steps."""

import asyncio
from collections.abc import Generator
from typing import Generic, TypeVar, cast

T = TypeVar("T")


class Work(Generic[T]):
    """A computation that takes turns with the canvases' steps. Made and awaited on the event loop.

    Attributes:
        is_wanted: False once nobody waits for it: its next part is not computed.
    """

    def __init__(self, parts: Generator[int, None, T]) -> None:
        self.is_wanted = True
        self._parts = parts
        self._result: T | None = None
        self._future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def advance(self) -> int | None:
        """Compute the next part, on a model thread; returns its tokens, or None when there was none left."""
        try:
            return next(self._parts)
        except StopIteration as end:
            self._result = end.value
            return None

    def end(self, error: Exception | None = None) -> None:
        """Give the result, or the error, to who waits; on the event loop."""
        if self._future.done():
            return
        if error is None:
            self._future.set_result(cast(T, self._result))
        else:
            self._future.set_exception(error)

    async def result(self) -> T:
        """
        Raises:
            EngineStoppedError: the server is shutting down.
            Exception: whatever a part raised.
        """
        return await self._future

    def cancel(self) -> None:
        """Nobody waits for it any more: no further part of it is computed."""
        self.is_wanted = False
