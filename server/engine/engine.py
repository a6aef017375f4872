"""The threads that own the model: schedule → step → publish, over and over.

The event loop never calls torch, and these threads touch asyncio by `call_soon_threadsafe` alone. Between two steps the
lock is free: that is when requests join and leave. Threads share the weights, which nobody writes, and the scheduler;
a canvas belongs to one thread during a step.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Generator, Sequence
from typing import Any, TypeVar

import torch

from llada_core.sampling.canvas import Canvas
from llada_core.sampling.sampler import Sampler
from server.engine.mailbox import Mailbox, TimedStep
from server.engine.metrics import Metrics
from server.engine.scheduler import Request, Scheduler
from server.engine.work import Work

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Engine:
    """Runs canvases to their end, any number at once, and other work of the model between their steps."""

    def __init__(self, sampler: Sampler, scheduler: Scheduler, metrics: Metrics, *, model_threads: int = 1) -> None:
        """`model_threads`: one leaves torch its own threads; of several each computes on one core."""
        self._sampler = sampler
        self._scheduler = scheduler
        self._metrics = metrics
        self._lock = threading.Condition()
        self._is_stopping = False
        self._works: set[Work[Any]] = set()
        # Those whose next part no thread computes at the moment.
        self._ready_works: deque[Work[Any]] = deque()
        # Tokens that works may still send through the model, so that each gets as much of it as a request does.
        self._work_allowance = 0.0
        self._threads = [
            threading.Thread(target=self._run, name=f"llada-engine-{number}", daemon=True)
            for number in range(model_threads)
        ]
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def is_alive(self) -> bool:
        return all(thread.is_alive() for thread in self._threads)

    @property
    def max_batch_tokens(self) -> int:
        """Tokens that one pass through the model should have at most."""
        return self._scheduler.max_batch_tokens

    @property
    def num_unfinished(self) -> int:
        with self._lock:
            return self._scheduler.num_running + self._scheduler.num_waiting + len(self._works)

    def start(self) -> None:
        """Start the model threads; must be called on the event loop that will read the streams."""
        self._loop = asyncio.get_running_loop()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the model threads after the steps in hand."""
        with self._lock:
            self._is_stopping = True
            self._lock.notify_all()
        for thread in self._threads:
            thread.join()

    def submit(self, canvases: Sequence[Canvas]) -> list[Request]:
        """Queue canvases, all of them or none; each request's steps are then read with `stream`.

        Raises:
            QueueFullError: they do not fit.
            CacheTooLargeError: the caches of one are more than the memory for all.
        """
        requests = [Request(canvas, Mailbox(), self._sampler.cache_bytes(canvas)) for canvas in canvases]
        with self._lock:
            self._scheduler.add([request for request in requests if not request.is_complete])
            self._observe_load()
            self._lock.notify_all()
        return requests

    def resubmit(self, request: Request) -> None:
        """Queue a request again that was cancelled before its end; it goes on where it stood.

        Raises:
            QueueFullError: it does not fit.
        """
        if request.is_complete:
            return
        with self._lock:
            self._scheduler.add([request])
            self._observe_load()
            self._lock.notify_all()

    def require_room(self, num_requests: int) -> None:
        """
        Raises:
            QueueFullError: so many requests more would overfill the queue.
        """
        with self._lock:
            self._scheduler.require_room(num_requests)

    def start_work(self, parts: Generator[int, None, T]) -> Work[T]:
        """Begin a computation that uses the model. It yields wherever others may have their turn: how many tokens it
        sent through the model since the last time.

        Raises:
            QueueFullError: as many computations are under way as requests may be admitted and wait.
        """
        work = Work(parts)
        with self._lock:
            self._scheduler.require_room(len(self._works) + 1)
            self._works.add(work)
            self._ready_works.append(work)
            self._observe_load()
            self._lock.notify_all()
        return work

    async def stream(self, request: Request) -> AsyncGenerator[TimedStep]:
        """A request's steps as they happen. Leaving the iteration early takes it out before the next step.

        Raises:
            NonFiniteLogitsError, RuntimeError: whatever its own step raised; other requests go on.
            EngineStoppedError: the server is shutting down.
        """
        try:
            while not request.is_complete:
                timed = await request.mailbox.get()
                request.is_complete = timed.event.finish_reason is not None
                yield timed
        finally:
            self.cancel(request)

    def cancel(self, request: Request) -> None:
        """Take a request out of the queue or the batch; harmless when it has already left."""
        with self._lock:
            self._scheduler.remove(request)
            self._observe_load()

    def fail_all(self, error: Exception) -> None:
        """End every unfinished request with `error`."""
        with self._lock:
            for request in self._scheduler.clear():
                request.mailbox.fail(error)
            for work in self._works:
                work.end(error)
                work.is_wanted = False
            self._observe_load()

    def _run(self) -> None:
        if len(self._threads) > 1:
            torch.set_num_threads(1)
        while turn := self._next_turn():
            batch, work = turn
            if batch:
                self._advance(batch)
                with self._lock:
                    self._scheduler.release(batch)
                    self._observe_load()
                    self._lock.notify_all()
            if work is not None:
                self._advance_work(work)

    def _next_turn(self) -> tuple[list[Request], Work[Any] | None] | None:
        """A step for canvases, a part of other work, or both; None when the engine stops."""
        with self._lock:
            while not self._is_stopping:
                batch = self._scheduler.schedule()
                work = self._next_work(batch)
                if batch or work:
                    self._observe_load()
                    return batch, work
                self._lock.wait()
        return None

    def _next_work(self, batch: Sequence[Request]) -> Work[Any] | None:
        """The work whose turn it is beside a step of `batch`; called with the lock held."""
        if not batch:
            self._work_allowance = 0.0
        elif self._works:
            tokens = sum(request.num_tokens for request in batch)
            self._work_allowance += len(self._works) * tokens / self._scheduler.num_running
        return self._ready_works.popleft() if self._ready_works and self._work_allowance >= 0 else None

    def _advance_work(self, work: Work[Any]) -> None:
        """Compute its next part; without one, or when nobody wants it, it is over."""
        tokens, error = None, None
        try:
            tokens = work.advance() if work.is_wanted else None
        except Exception as caught:  # the thread must outlive any failure
            error = caught
        with self._lock:
            if tokens is not None:
                self._work_allowance -= tokens
                self._ready_works.append(work)
                self._lock.notify_all()
                return
            self._works.discard(work)
            self._observe_load()
        assert self._loop is not None
        self._loop.call_soon_threadsafe(work.end, error)

    def _advance(self, batch: Sequence[Request]) -> None:
        started = time.perf_counter()
        try:
            events = self._sampler.step([request.canvas for request in batch])
        except Exception as error:  # the thread must outlive any failure of one step
            self._advance_one_by_one(batch, error)
            return
        self._metrics.observe_step(events, time.perf_counter() - started)
        with self._lock:
            for request, event in zip(batch, events, strict=True):
                if event.finish_reason is not None:
                    self._scheduler.remove(request)
            self._observe_load()
        now = time.monotonic()
        self._post(
            [
                (request, TimedStep(event, (now - (request.admitted_at or now)) * 1000))
                for request, event in zip(batch, events, strict=True)
            ]
        )

    def _advance_one_by_one(self, batch: Sequence[Request], error: Exception) -> None:
        """A failed step leaves every canvas as it was; run each alone, so that only the guilty one fails."""
        if len(batch) > 1:
            for request in batch:
                with self._lock:
                    is_wanted = self._scheduler.is_running(request)
                if is_wanted:
                    self._advance([request])
            return
        logger.error("denoising step failed", exc_info=error)
        with self._lock:
            self._scheduler.remove(batch[0])
            self._observe_load()
        self._post([(batch[0], error)])

    def _post(self, news: Sequence[tuple[Request, TimedStep | Exception]]) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._deliver, news)

    def _deliver(self, news: Sequence[tuple[Request, TimedStep | Exception]]) -> None:
        for request, step in news:
            if isinstance(step, Exception):
                request.mailbox.fail(step)
            else:
                request.mailbox.put(step)

    def _observe_load(self) -> None:
        """Called with the lock held."""
        scheduler = self._scheduler
        num_running = scheduler.num_running + len(self._works)
        self._metrics.observe_load(num_running, scheduler.num_waiting, scheduler.cache_bytes)
