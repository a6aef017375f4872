"""The whole policy of the engine: which requests and other computations run next.

Pure bookkeeping: no thread, no torch, no asyncio; the engine holds a lock around it.
"""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from llada_core.diffusion.guidance import num_passes
from llada_core.sampling.canvas import Canvas
from server.engine.errors import CacheTooLargeError, QueueFullError
from server.engine.mailbox import Mailbox
from server.engine.work import Work


@dataclass(eq=False, slots=True)
class Request:
    """A canvas in progress and the mailbox for its steps.

    Attributes:
        cache_bytes: memory that its keys and values take while it runs.
        admitted_at: `time.monotonic()` when it first left the queue.
        last_scheduled: the round of its last step or, before its first step, the round before its admission; the least
            recent comes first.
        is_stepping: a model thread has its canvas; no other thread may touch it.
        is_complete: its reader has received the last step, or there is none (constraints fix the whole response).
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
        restored = self.canvas.visible_length if self.canvas.lacks_caches else 0
        return (len(self.canvas.window) + restored) * num_passes(self.canvas.params.cfg_scale)


@dataclass(frozen=True, slots=True)
class Turn:
    """The next computation of a model thread: a step of `requests`, a part of `work`, or both."""

    requests: list[Request]
    work: Work[Any] | None


class Scheduler:
    """First come, first served, as far as `max_batch_size` and the memory for caches allow.

    Admitted requests take turns when a step cannot hold them all, and several model threads share them evenly. Each
    other computation gets as much of the model as a request does.
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
        """
        Args:
            kv_cache_memory: bytes that the caches of all admitted requests may take.
        """
        self.max_batch_tokens = max_batch_tokens
        self._max_batch_size = max_batch_size
        self._max_queue = max_queue
        self._kv_cache_memory = kv_cache_memory
        self._model_threads = model_threads
        self._waiting: deque[Request] = deque()
        self._running: list[Request] = []
        self._round = 0
        self._works: set[Work[Any]] = set()
        # The computations of which no thread is running a part.
        self._ready_works: deque[Work[Any]] = deque()
        # Tokens that other computations may still send through the model before it is the requests' turn.
        self._work_allowance = 0.0

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Admitted requests and other computations."""
        return len(self._running) + len(self._works)

    @property
    def cache_bytes(self) -> int:
        """Memory set aside for the caches of the admitted requests."""
        return sum(request.cache_bytes for request in self._running)

    def add(self, requests: Sequence[Request]) -> None:
        """Queue all of `requests` or, if they do not fit, none.

        Raises:
            QueueFullError: the requests beyond the free places would overfill the queue.
            CacheTooLargeError: the caches of one request need more than the memory set aside for all.
        """
        largest = max((request.cache_bytes for request in requests), default=0)
        if largest > self._kv_cache_memory:
            raise CacheTooLargeError(largest, self._kv_cache_memory)
        assert not any(request in self._running or request in self._waiting for request in requests)
        self.require_room(len(requests))
        self._waiting.extend(requests)

    def add_work(self, work: Work[Any]) -> None:
        """Let a computation take turns with the requests.

        Raises:
            QueueFullError: as many computations are under way as there may be requests, running and waiting.
        """
        self.require_room(len(self._works) + 1)
        self._works.add(work)
        self._ready_works.append(work)

    def require_room(self, num_requests: int) -> None:
        """
        Raises:
            QueueFullError: `num_requests` more, beyond the free places, would overfill the queue.
        """
        free_places = self._max_batch_size - len(self._running)
        if len(self._waiting) + num_requests > self._max_queue + free_places:
            raise QueueFullError

    def is_running(self, request: Request) -> bool:
        """Admitted, and neither finished nor cancelled."""
        return request in self._running

    def remove(self, request: Request) -> None:
        """Forget a request, finished or cancelled, wherever it is."""
        if request in self._running:
            self._running.remove(request)
        elif request in self._waiting:
            self._waiting.remove(request)
        self._free_caches(request)

    def clear(self) -> tuple[list[Request], list[Work[Any]]]:
        """Forget all requests and computations, and return them."""
        requests, works = [*self._running, *self._waiting], list(self._works)
        for request in requests:
            self.remove(request)
        self._works.clear()
        self._ready_works.clear()
        return requests, works

    def schedule(self) -> Turn | None:
        """Choose what a free thread computes next; None if there is nothing.

        The thread gives it back by `release` and `release_work`.
        """
        self._admit()
        requests = self._next_requests()
        work = self._next_work(requests)
        return Turn(requests, work) if requests or work else None

    def release(self, requests: Sequence[Request]) -> None:
        """Take back requests whose step is over."""
        for request in requests:
            request.is_stepping = False
            self._free_caches(request)

    def release_work(self, work: Work[Any], tokens: int | None) -> None:
        """Take back a computation whose part sent `tokens` through the model; None if the computation is over."""
        if tokens is None:
            self._works.discard(work)
        elif work in self._works:
            self._work_allowance -= tokens
            self._ready_works.append(work)

    def _admit(self) -> None:
        cache_bytes = self.cache_bytes
        while self._waiting and len(self._running) < self._max_batch_size:
            if cache_bytes + self._waiting[0].cache_bytes > self._kv_cache_memory:
                break
            request = self._waiting.popleft()
            # A resubmitted request may have ended with the step during which it was cancelled.
            if request.canvas.finish_reason is None:
                request.admitted_at = request.admitted_at or time.monotonic()
                # Count as stepped in the last round, so that newcomers cannot starve requests waiting for their turn.
                request.last_scheduled = self._round - 1
                self._running.append(request)
                cache_bytes += request.cache_bytes

    def _next_requests(self) -> list[Request]:
        """The requests of the next step; empty when none is free.

        The request that has waited longest is always among them. Others join in order of waiting as far as their tokens
        fit; one that does not fit is skipped, not waited for, and comes first in a later round. No thread takes more
        than its share, so that none is idle while another has several requests.
        """
        share = ceil(len(self._running) / self._model_threads)
        requests: list[Request] = []
        tokens_left = self.max_batch_tokens
        free = [request for request in self._running if not request.is_stepping]
        for request in sorted(free, key=lambda request: request.last_scheduled):
            if not requests or (request.num_tokens <= tokens_left and len(requests) < share):
                requests.append(request)
                tokens_left -= request.num_tokens
                request.last_scheduled = self._round
                request.is_stepping = True
        self._round += 1
        return requests

    def _next_work(self, requests: Sequence[Request]) -> Work[Any] | None:
        """The computation whose turn it is beside a step of `requests`."""
        if not requests:
            self._work_allowance = 0.0
        elif self._works:
            tokens = sum(request.num_tokens for request in requests)
            self._work_allowance += len(self._works) * tokens / len(self._running)
        return self._ready_works.popleft() if self._ready_works and self._work_allowance >= 0 else None

    def _free_caches(self, request: Request) -> None:
        """Free the keys and values of a request that has left, as soon as no thread uses them."""
        if request not in self._running and not request.is_stepping:
            request.canvas.caches = None
