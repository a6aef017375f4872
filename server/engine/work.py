"""A computation of the model that takes turns with the denoising steps."""

import asyncio
import time
from collections.abc import Generator
from typing import Generic, TypeVar, cast

T = TypeVar("T")


class Work(Generic[T]):
    """A computation in parts. It is created and awaited on the event loop.

    Attributes:
        client: whoever shares a fair share of the model with its other computations.
        cache_bytes: memory that keys and values take while a part is computed.
        started: `time.monotonic()` of its creation.
        is_wanted: False once nobody waits for the result: no further part is computed.
    """

    def __init__(self, parts: Generator[int, None, T], client: str = "", *, cache_bytes: int = 0) -> None:
        self.client = client
        self.cache_bytes = cache_bytes
        self.started = time.monotonic()
        self.is_wanted = True
        self._parts = parts
        self._result: T | None = None
        self._future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def advance(self) -> int | None:
        """Compute the next part, on a model thread; returns the tokens it took, or None when no part was left."""
        try:
            return next(self._parts)
        except StopIteration as end:
            self._result = end.value
            return None

    def end(self, error: Exception | None = None) -> None:
        """Hand the result or the error to the waiting reader. Call it on the event loop."""
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
        """Compute no further part: nobody waits for the result any more."""
        self.is_wanted = False
