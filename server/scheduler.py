"""Who is in the next step. Pure bookkeeping: no thread, no torch, no asyncio; the engine holds a lock around it."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from llada_core.sampling import Canvas
from server.mailbox import Mailbox


class QueueFullError(Exception):
    """More requests wait than the queue may hold."""


@dataclass(eq=False, slots=True)
class Request:
    """A canvas under way, and where its steps are sent.

    Attributes:
        admitted_at: `time.monotonic()` when it left the queue for the first time.
        last_scheduled: the number of the round in which it was last stepped; the least recent goes first.
        is_complete: its reader has had the last step, or there is none (a response given whole by constraints).
    """

    canvas: Canvas
    mailbox: Mailbox
    admitted_at: float | None = None
    last_scheduled: int = -1
    is_complete: bool = field(init=False)

    def __post_init__(self) -> None:
        self.is_complete = self.canvas.finish_reason is not None

    @property
    def num_tokens(self) -> int:
        """Tokens that its next step sends through the model."""
        return self.canvas.visible_length * self.canvas.passes_per_step


class Scheduler:
    """First come, first served, up to `max_batch_size` admitted; those take turns when a step cannot hold them all."""

    def __init__(self, *, max_batch_size: int, max_batch_tokens: int, max_queue: int) -> None:
        self._max_batch_size = max_batch_size
        self._max_batch_tokens = max_batch_tokens
        self._max_queue = max_queue
        self._waiting: deque[Request] = deque()
        self._running: list[Request] = []
        self._round = 0

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        return len(self._running)

    def add(self, requests: Sequence[Request]) -> None:
        """Queue all of `requests` or, when they do not fit, none.

        Raises:
            QueueFullError: the requests beyond the free places would overfill the queue.
        """
        assert not any(request in self._running or request in self._waiting for request in requests)
        free_places = self._max_batch_size - len(self._running)
        if len(self._waiting) + len(requests) > self._max_queue + free_places:
            raise QueueFullError
        self._waiting.extend(requests)

    def remove(self, request: Request) -> None:
        """Forget a request, finished or cancelled, wherever it is."""
        if request in self._running:
            self._running.remove(request)
        elif request in self._waiting:
            self._waiting.remove(request)

    def clear(self) -> list[Request]:
        """Forget all requests; returns them."""
        requests = [*self._running, *self._waiting]
        self._running.clear()
        self._waiting.clear()
        return requests

    def schedule(self) -> list[Request]:
        """The requests of the next step; empty when nothing is left to do.

        Whoever waited longest is always in it. Others join in that order as far as their tokens fit; one that does not
        fit is passed over, not waited for, and comes first in a later round.
        """
        while self._waiting and len(self._running) < self._max_batch_size:
            request = self._waiting.popleft()
            # A resubmitted one may have ended with the step that was under way when it was cancelled.
            if request.canvas.finish_reason is None:
                request.admitted_at = request.admitted_at or time.monotonic()
                self._running.append(request)
        batch: list[Request] = []
        tokens_left = self._max_batch_tokens
        for request in sorted(self._running, key=lambda request: request.last_scheduled):
            if not batch or request.num_tokens <= tokens_left:
                batch.append(request)
                tokens_left -= request.num_tokens
                request.last_scheduled = self._round
        self._round += 1
        return batch
