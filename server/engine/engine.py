"""The threads that own the model: schedule → step → publish, over and over.

The event loop never calls torch, and these threads touch asyncio only by `call_soon_threadsafe`. The lock is free
between two steps: that is when requests join and leave. Threads share the scheduler and the
weights, which are never written; a canvas belongs to one thread during a step.
"""

import asyncio
import logging
import threading
import time
import traceback
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from llada_core.diffusion.guidance import num_passes
from llada_core.memory import is_out_of_memory
from llada_core.sampling.canvas import Canvas
from llada_core.sampling.events import DenoisingStep
from llada_core.sampling.sampler import Sampler
from server.engine.errors import EngineBrokenError
from server.engine.mailbox import Mailbox, TimedStep
from server.engine.metrics import EngineMetrics
from server.engine.scheduler import Request, Scheduler, Turn
from server.engine.times import Times
from server.engine.watch import Watch
from server.engine.work import Work

logger = logging.getLogger(__name__)

T = TypeVar("T")

_WATCH_SECONDS = 0.5


class Engine:
    """Runs any number of canvases to completion, and other model computations between their steps.

    Attributes:
        watch: whether the model threads are well.
    """

    def __init__(
        self,
        sampler: Sampler,
        scheduler: Scheduler,
        metrics: EngineMetrics,
        *,
        model_threads: int = 1,
        threads: int | None = None,
        step_timeout: float = 600.0,
    ) -> None:
        """
        Args:
            model_threads: threads that run the model.
            threads: the cores that each of these uses; None for torch's own setting or, with several, for one.
            step_timeout: seconds after which a step counts as hanging, and the engine as broken.
        """
        self._sampler = sampler
        self._scheduler = scheduler
        self._metrics = metrics
        self._lock = threading.Condition()
        self._is_stopping = False
        self.watch = Watch(step_timeout)
        self._num_cores = 1 if model_threads > 1 else threads
        self._threads = [
            threading.Thread(target=self._run, name=f"llada-engine-{number}", daemon=True)
            for number in range(model_threads)
        ]
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def max_batch_tokens(self) -> int:
        """The most tokens that one pass through the model should have."""
        return self._scheduler.max_batch_tokens

    @property
    def num_unfinished(self) -> int:
        with self._lock:
            return self._scheduler.num_running + self._scheduler.num_waiting

    def start(self) -> None:
        """Start the model threads; must be called on the event loop that will read the steps."""
        self._loop = asyncio.get_running_loop()
        with self._lock:
            self._observe_load()
        for thread in (*self._threads, threading.Thread(target=self._keep_watch, name="llada-watch", daemon=True)):
            thread.start()

    def stop(self) -> None:
        """End the model threads after their current steps; those of a broken engine are left."""
        with self._lock:
            self._is_stopping = True
            self._lock.notify_all()
        for thread in self._threads:
            while thread.is_alive() and self.watch.broken_by is None:
                thread.join(_WATCH_SECONDS)

    def submit(self, canvases: Sequence[Canvas], client: str = "", *, arrived: float | None = None) -> list[Request]:
        """Queue a client's canvases, all of them or none; each request's steps are then read with `next_step`.

        Args:
            arrived: `time.monotonic()` when the server received them; None for now.

        Raises:
            QueueFullError: the queue has no room for them.
            CacheTooLargeError: the caches of one canvas need more than the memory set aside for all.
        """
        self._require_whole()
        arrived = time.monotonic() if arrived is None else arrived
        requests = [
            Request(canvas, Mailbox(), client, self._sampler.cache_bytes(canvas), Times(arrived)) for canvas in canvases
        ]
        with self._changing() as scheduler:
            scheduler.add([request for request in requests if not request.is_complete])
        return requests

    def resubmit(self, request: Request) -> None:
        """Queue a cancelled request again; it continues where it left off.

        Raises:
            QueueFullError: the queue is full.
        """
        self._require_whole()
        if request.is_complete:
            return
        with self._changing() as scheduler:
            scheduler.add([request])

    def require_room(self, client: str, num_requests: int) -> None:
        """
        Raises:
            QueueFullError: `num_requests` more of this client would overfill the queue.
        """
        with self._lock:
            self._scheduler.require_room(client, num_requests)

    def start_work(self, parts: Generator[int, None, T], client: str = "", *, cache_bytes: int = 0) -> Work[T]:
        """Begin a computation that uses the model. Wherever others may take a turn, it yields the number of tokens that
        it has sent through the model since its last yield.

        Args:
            cache_bytes: memory that keys and values take while a part is computed.

        Raises:
            QueueFullError: too many computations are under way.
            CacheTooLargeError: it needs more than the memory set aside for all caches.
        """
        self._require_whole()
        work = Work(parts, client, cache_bytes=cache_bytes)
        with self._changing() as scheduler:
            scheduler.add_work(work)
        return work

    def _require_whole(self) -> None:
        if self.watch.broken_by is not None:
            raise EngineBrokenError

    async def next_step(self, request: Request) -> TimedStep:
        """Wait for a request's next step; `request.is_complete` tells afterwards whether it was the last.

        Raises:
            NonFiniteLogitsError, RuntimeError: whatever this request's own step raised; other requests go on.
            EngineStoppedError, EngineBrokenError: the server is shutting down, or a model thread has ended.
        """
        timed = await request.mailbox.get()
        request.is_complete = timed.event.finish_reason is not None
        return timed

    def cancel(self, request: Request) -> None:
        """Take a request out of the queue or the batch; harmless if it has left already."""
        with self._changing() as scheduler:
            scheduler.remove(request)

    def fail_all(self, error: Exception) -> None:
        """End every unfinished request and computation with `error`."""
        with self._changing() as scheduler:
            requests, works = scheduler.clear()
        for request in requests:
            request.mailbox.fail(error)
        for work in works:
            work.cancel()
            work.end(error)

    def _run(self) -> None:
        try:
            if self._num_cores is not None:
                torch.set_num_threads(self._num_cores)
            while turn := self._next_turn():
                self._take(turn)
        except BaseException as error:  # whatever it is, this thread ends, and without it the engine is broken
            self._break(error)

    def _take(self, turn: Turn) -> None:
        if turn.requests:
            self._advance(turn.requests)
            with self._changing() as scheduler:
                scheduler.release(turn.requests)
        if turn.work is not None:
            self._advance_work(turn.work)

    def _keep_watch(self) -> None:
        """Break the engine if a step takes too long; ends with the model threads, for which `stop` waits."""
        while self.watch.broken_by is None and any(thread.is_alive() for thread in self._threads):
            time.sleep(_WATCH_SECONDS)
            if (seconds := self.watch.overdue) is not None:
                limit = self.watch.step_timeout
                self._break(TimeoutError(f"a denoising step has taken {seconds:.0f} s; --step-timeout is {limit:g}"))

    @property
    def _is_over(self) -> bool:
        return self._is_stopping or self.watch.broken_by is not None

    def _break(self, error: BaseException) -> None:
        """Give up: refuse requests from now on, and fail all that are under way."""
        with self._lock:
            if self.watch.broken_by is not None:
                return
            self.watch.broken_by = error
            self._lock.notify_all()
        logger.critical("the engine is broken: no request can be served any more", exc_info=error)
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._end_broken)

    def _end_broken(self) -> None:
        self.fail_all(EngineBrokenError())
        self.watch.on_broken()

    def _next_turn(self) -> Turn | None:
        """Wait for something to compute; None when the engine stops."""
        with self._lock:
            while not self._is_over:
                if turn := self._scheduler.schedule():
                    self._observe_load()
                    return turn
                self._lock.wait()
        return None

    def _advance(self, batch: Sequence[Request]) -> None:
        """Step a batch. If that fails, step its canvases one by one, so that only the faulty one fails. If it lacked
        memory, later batches are smaller, and a single canvas gets a second try too: less may be in use by then.
        """
        error = self._step(batch)
        if error is None:
            return
        if len(batch) > 1 and is_out_of_memory(error):
            sizes = [request.num_tokens for request in batch]
            self._shrink_batches(max(sum(sizes) // 2, *sizes))
        elif len(batch) == 1 and not is_out_of_memory(error):
            self._fail(batch[0], error)
            return
        for request in batch:
            with self._lock:
                is_wanted = self._scheduler.is_running(request)
            if is_wanted and (error := self._step([request])) is not None:
                self._fail(request, error)

    def _step(self, batch: Sequence[Request]) -> Exception | None:
        """Compute a step and post it; the exception if it failed, and then no canvas has changed."""
        started, tokens = time.perf_counter(), sum(request.num_tokens for request in batch)
        try:
            with self.watch.computing():
                events = self._sampler.step([request.canvas for request in batch])
        except Exception as error:  # the thread must outlive any failure of a step
            # The frames hold the step's tensors, whose memory a second try needs.
            traceback.clear_frames(error.__traceback__)
            return error
        self.watch.num_failed_in_a_row = 0
        tokens -= sum(
            event.reused_tokens * num_passes(request.canvas.params.cfg_scale)
            for request, event in zip(batch, events, strict=True)
        )
        self._metrics.observe_step(events, tokens=tokens, seconds=time.perf_counter() - started)
        self._note_stages(batch, events)
        with self._changing() as scheduler:
            for request, event in zip(batch, events, strict=True):
                if event.finish_reason is not None:
                    scheduler.remove(request)
        now = time.monotonic()
        self._post(
            [
                (request, TimedStep(event, (now - (request.times.admitted or now)) * 1000))
                for request, event in zip(batch, events, strict=True)
            ]
        )
        return None

    def _note_stages(self, batch: Sequence[Request], events: Sequence[DenoisingStep]) -> None:
        for request, event in zip(batch, events, strict=True):
            if event.changes and request.times.commit():
                self._metrics.observe_first_commit(request.times)
            if event.finish_reason is not None:
                request.times.finish()

    def _fail(self, request: Request, error: Exception) -> None:
        """End a request whose own step failed."""
        self.watch.num_failed_in_a_row += 1
        self._metrics.observe_failed_step()
        logger.error("denoising step failed", exc_info=error)
        with self._changing() as scheduler:
            scheduler.remove(request)
        self._post([(request, error)])

    def _shrink_batches(self, max_batch_tokens: int) -> None:
        logger.warning("out of memory in a step: steps have at most %d tokens from now on", max_batch_tokens)
        with self._changing() as scheduler:
            scheduler.max_batch_tokens = min(scheduler.max_batch_tokens, max_batch_tokens)

    def _advance_work(self, work: Work[Any]) -> None:
        """Compute the next part. A computation ends when no part is left, or nobody waits for the result."""
        tokens, error = None, None
        try:
            with self.watch.computing():
                tokens = work.advance() if work.is_wanted else None
        except Exception as raised:  # the thread must outlive any failure of a computation
            error = raised
        with self._changing() as scheduler:
            scheduler.release_work(work, tokens)
        if tokens is not None:
            self._metrics.observe_likelihood(tokens)
        else:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(work.end, error)

    def _post(self, steps: Sequence[tuple[Request, TimedStep | Exception]]) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._deliver, steps)

    def _deliver(self, steps: Sequence[tuple[Request, TimedStep | Exception]]) -> None:
        for request, step in steps:
            if isinstance(step, Exception):
                request.mailbox.fail(step)
            else:
                request.mailbox.put(step)

    @contextmanager
    def _changing(self) -> Iterator[Scheduler]:
        """The scheduler, locked for a change. Afterwards metrics show the new load, and idle threads check for work."""
        with self._lock:
            yield self._scheduler
            self._observe_load()
            self._lock.notify_all()

    def _observe_load(self) -> None:
        """Must be called with the lock held."""
        scheduler = self._scheduler
        self._metrics.observe_load(
            scheduler.num_running,
            scheduler.num_waiting,
            cache_bytes=scheduler.cache_bytes,
            max_batch_tokens=scheduler.max_batch_tokens,
        )
