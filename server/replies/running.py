"""Requests while they run: their submission, their steps, the time limit, their end."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Generator, Iterable, Sequence
from typing import TypeVar

from llada_core.sampling.canvas import Canvas
from llada_core.text.tokenizer import Tokenizer
from server.engine.engine import Engine
from server.engine.errors import EngineStoppedError
from server.engine.mailbox import TimedStep
from server.engine.work import Work
from server.http.api_error import shutting_down, timed_out
from server.http.exchange import current_exchange
from server.replies.endings import CANCELLED, Endings, finish_reason_of
from server.replies.generation import Generation
from server.replies.text_stream import TextStream
from server.replies.usage import Usage
from server.settings import Settings

T = TypeVar("T")


class Running:
    """Everything that runs on the engine. Requests are submitted and cancelled only here.

    Attributes:
        is_draining: the server is shutting down; new requests are refused.
        endings: where all that ends is counted and reported.
    """

    def __init__(self, engine: Engine, tokenizer: Tokenizer | None, endings: Endings, settings: Settings) -> None:
        self.is_draining = False
        self.endings = endings
        self._engine = engine
        self._tokenizer = tokenizer
        self._settings = settings

    def require_room(self, client: str, num_requests: int) -> None:
        """
        Raises:
            QueueFullError: `num_requests` more of this client would overfill the queue.
        """
        self._engine.require_room(client, num_requests)

    def submit(self, canvases: Sequence[Canvas], client: str) -> list[Generation]:
        """Hand the canvases of one answer to the engine, all of them or none.

        Raises:
            APIError: the server is shutting down.
            QueueFullError: too many requests are waiting already.
        """
        self._refuse_while_draining()
        # Created first: once submitted, a canvas belongs to the model threads.
        texts = [TextStream(canvas, self._tokenizer) for canvas in canvases]
        requests = self._engine.submit(canvases, client, arrived=current_exchange().arrived)
        return [Generation(request, text) for request, text in zip(requests, texts, strict=True)]

    async def steps(self, generation: Generation) -> AsyncGenerator[tuple[TimedStep, str]]:
        """Each step with the text that it made final. Leaving early takes the request out of the batch.

        Raises:
            APIError: the request took longer than the request timeout.
        """
        try:
            self.endings.finish(generation)
            while not generation.request.is_complete:
                timed = await self._within_limit(self._engine.next_step(generation.request), generation.started)
                delta = generation.text.apply(timed.event)
                self.endings.finish(generation)
                yield timed, delta
        except Exception as error:
            self.endings.fail(generation, finish_reason_of(error))
            raise
        finally:
            self._engine.cancel(generation.request)

    async def finish(self, generations: Iterable[Generation]) -> None:
        """Run generations to completion.

        Raises:
            APIError: the request took longer than the request timeout.
        """
        # The engine runs them all at once, in whatever order their steps are read.
        for generation in generations:
            async for _ in self.steps(generation):
                pass

    def release(self, generations: Sequence[Generation], usage: Usage) -> None:
        """End an answer: take what still runs of it out of the batch before the next step, and report it."""
        for generation in generations:
            self._engine.cancel(generation.request)
        self.endings.fail_rest(generations)
        self.endings.report(generations, usage)

    def pause(self, generation: Generation) -> None:
        """Take a generation out of the batch, stop its clock until `resume`, and report its answer so far."""
        self._engine.cancel(generation.request)
        generation.request.times.pause()
        self.endings.report([generation], generation.usage())

    def abandon(self, generation: Generation) -> None:
        """A paused generation will not be resumed."""
        self.endings.fail(generation, CANCELLED)

    def resume(self, generation: Generation) -> None:
        """Hand a paused generation to the engine again.

        Raises:
            APIError: the server is shutting down.
            QueueFullError: too many requests are waiting already.
        """
        self._refuse_while_draining()
        self._engine.resubmit(generation.request)
        generation.request.times.resume()

    def start_work(self, parts: Generator[int, None, T], client: str, *, cache_bytes: int = 0) -> Work[T]:
        """Hand a computation to the engine. Wherever others may take a turn, it yields the tokens of its last part.

        Args:
            cache_bytes: memory that keys and values take while a part is computed.

        Raises:
            APIError: the server is shutting down.
            QueueFullError: too many computations are under way already.
            CacheTooLargeError: it needs more than the memory set aside for all caches.
        """
        self._refuse_while_draining()
        return self._engine.start_work(parts, client, cache_bytes=cache_bytes)

    async def result_of(self, work: Work[T]) -> T:
        """The result of a computation.

        Raises:
            APIError: the request took longer than the request timeout.
        """
        try:
            return await self._within_limit(work.result(), work.started)
        finally:
            work.cancel()

    async def drain(self) -> None:
        """Refuse new requests, let those under way finish within the grace period, then end the rest with an error."""
        self.is_draining = True
        deadline = time.monotonic() + self._settings.shutdown_grace
        while self._engine.num_unfinished and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        self._engine.fail_all(EngineStoppedError())

    async def _within_limit(self, result: Awaitable[T], started: float) -> T:
        limit = self._settings.request_timeout
        try:
            # Not wait_for, which loses a cancellation that coincides with a step.
            async with asyncio.timeout(started + limit - time.monotonic()):
                return await result
        except TimeoutError:
            raise timed_out(limit) from None

    def _refuse_while_draining(self) -> None:
        if self.is_draining:
            raise shutting_down()
