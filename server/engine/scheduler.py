"""Who is in the next step. Pure bookkeeping: no thread, no torch, no asyncio; the engine holds a lock around it."""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil

from llada_core.diffusion.guidance import num_passes
from llada_core.sampling.canvas import Canvas
from server.engine.errors import CacheTooLargeError, QueueFullError
from server.engine.mailbox import Mailbox


@dataclass(eq=False, slots=True)
class Request:
    """A canvas under way, and where its steps are sent.

    Attributes:
        cache_bytes: memory that its keys and values take while it runs.
        admitted_at: `time.monotonic()` when it left the queue for the first time.
        last_scheduled: the number of the round in which it was last stepped, or else the one before it was admitted;
            the least recent goes first.
        is_stepping: a model thread has its canvas; nobody else may touch it.
        is_complete: its reader has had the last step, or there is none (a response given whole by constraints).
    """

    canvas: Canvas
    mailbox: Mailbox
    cache_bytes: int = 0
    admitted_at: float | None = None
    last_scheduled: int = -1
    is_stepping: bool = False
    is_complete: bool = field(init=False)

    def __post_init__(self) -> None:
        self.is_complete = self.canvas.finish_reason is not None

    @property
    def num_tokens(self) -> int:
        """Tokens that its next step sends through the model."""
        return len(self.canvas.window) * num_passes(self.canvas.params.cfg_scale)


class Scheduler:
    """First come, first served, as far as `max_batch_size` and the memory for caches reach.

    Those admitted take turns when a step cannot hold them all, and several model threads share them evenly.
    """

    def __init__(
        self,
        *,
        max_batch_size: int,
        max_batch_tokens: int,
        max_queue: int,
        kv_cache_memory: int = 0,
        model_threads: int = 1,
    ) -> None:
        """`kv_cache_memory`: bytes that the caches of all admitted requests may take."""
        self._kv_cache_memory = kv_cache_memory
        self._model_threads = model_threads
        self._max_batch_size = max_batch_size
        self.max_batch_tokens = max_batch_tokens
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

    @property
    def cache_bytes(self) -> int:
        """Memory set aside for the caches of the admitted requests."""
        return sum(request.cache_bytes for request in self._running)

    def add(self, requests: Sequence[Request]) -> None:
        """Queue all of `requests` or, when they do not fit, none.

        Raises:
            QueueFullError: the requests beyond the free places would overfill the queue.
            CacheTooLargeError: a request's caches alone would take more than all the memory set aside for caches.
        """
        largest = max((request.cache_bytes for request in requests), default=0)
        if largest > self._kv_cache_memory:
            raise CacheTooLargeError(largest, self._kv_cache_memory)
        assert not any(request in self._running or request in self._waiting for request in requests)
        self.require_room(len(requests))
        self._waiting.extend(requests)

    def require_room(self, num_requests: int) -> None:
        """
        Raises:
            QueueFullError: so many more, beyond the free places, would overfill the queue.
        """
        free_places = self._max_batch_size - len(self._running)
        if len(self._waiting) + num_requests > self._max_queue + free_places:
            raise QueueFullError

    def remove(self, request: Request) -> None:
        """Forget a request, finished or cancelled, wherever it is; its caches go as soon as no thread uses them."""
        if request in self._running:
            self._running.remove(request)
        elif request in self._waiting:
            self._waiting.remove(request)
        if not request.is_stepping:
            request.canvas.caches = None

    def is_running(self, request: Request) -> bool:
        """Admitted, and neither finished nor cancelled."""
        return request in self._running

    def clear(self) -> list[Request]:
        """Forget all requests; returns them."""
        requests = [*self._running, *self._waiting]
        self._running.clear()
        self._waiting.clear()
        return requests

    def schedule(self) -> list[Request]:
        """The requests of a thread's next step, until it gives them back by `release`; empty when none is free.

        Whoever waited longest is always in it. Others join in that order as far as their tokens fit; one that does not
        fit is passed over, not waited for, and comes first in a later round. No thread takes more than its share, so
        that none is idle while another has several.
        """
        self._admit()
        share = ceil(len(self._running) / self._model_threads)
        batch: list[Request] = []
        tokens_left = self.max_batch_tokens
        free = [request for request in self._running if not request.is_stepping]
        for request in sorted(free, key=lambda request: request.last_scheduled):
            if not batch or (request.num_tokens <= tokens_left and len(batch) < share):
                batch.append(request)
                tokens_left -= request.num_tokens
                request.last_scheduled = self._round
                request.is_stepping = True
        self._round += 1
        return batch

    def release(self, batch: Sequence[Request]) -> None:
        """A step of these requests is over. Those that were removed meanwhile give their caches up."""
        for request in batch:
            request.is_stepping = False
            if request not in self._running:
                request.canvas.caches = None

    def _admit(self) -> None:
        cache_bytes = self.cache_bytes
        while self._waiting and len(self._running) < self._max_batch_size:
            if cache_bytes + self._waiting[0].cache_bytes > self._kv_cache_memory:
                break
            request = self._waiting.popleft()
            # A resubmitted one may have ended with the step that was under way when it was cancelled.
            if request.canvas.finish_reason is None:
                request.admitted_at = request.admitted_at or time.monotonic()
                # As if stepped in the last round: newcomers must not starve those that wait for their turn.
                request.last_scheduled = self._round - 1
                self._running.append(request)
                cache_bytes += request.cache_bytes
