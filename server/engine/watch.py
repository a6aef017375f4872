"""What the model threads are at: how long each has computed, how many steps failed in a row, what ended one of them."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Watch:
    """Kept by the model threads, read by whoever asks for the engine's health.

    Attributes:
        broken_by: what ended a model thread, or showed that one hangs; None while all is well. It stays.
        num_failed_in_a_row: steps that have failed since the last one that did not.
        on_broken: called on the event loop once the engine is broken and all requests have failed.
    """

    def __init__(self, step_timeout: float) -> None:
        """
        Args:
            step_timeout: seconds after which a thread that computes counts as hanging.
        """
        self.broken_by: BaseException | None = None
        self.num_failed_in_a_row = 0
        self.on_broken: Callable[[], None] = lambda: None
        self.step_timeout = step_timeout
        self._since: dict[int, float] = {}

    @contextmanager
    def computing(self) -> Iterator[None]:
        """The calling thread computes within the block."""
        number = threading.get_ident()
        self._since[number] = time.monotonic()
        try:
            yield
        finally:
            del self._since[number]

    @property
    def overdue(self) -> float | None:
        """The seconds that a thread has computed, if they are more than it may; else None."""
        longest = max((time.monotonic() - since for since in list(self._since.values())), default=0.0)
        return longest if longest > self.step_timeout else None
