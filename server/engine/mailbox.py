"""The steps of one request on their way from the model thread to the client.

A reader that is slower than the model must neither make the engine wait nor let memory grow: past a bound the oldest
steps are merged. Every change keeps the number of its step, so nothing is lost.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, replace

from llada_core.sampling.events import DenoisingStep

MAX_WAITING = 256


@dataclass(frozen=True, slots=True)
class TimedStep:
    """A denoising step and the milliseconds since its request was admitted."""

    event: DenoisingStep
    elapsed_ms: float


class Mailbox:
    """A queue with one reader. Every method belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._steps: deque[TimedStep] = deque()
        self._error: Exception | None = None
        self._arrived = asyncio.Event()

    def put(self, step: TimedStep) -> None:
        """Add a step; if too many are waiting, merge the two oldest."""
        self._steps.append(step)
        if len(self._steps) > MAX_WAITING:
            oldest, second = self._steps.popleft(), self._steps.popleft()
            self._steps.appendleft(_merge(oldest, second))
        self._arrived.set()

    def fail(self, error: Exception) -> None:
        """End the stream with an error, after the steps that are already waiting."""
        self._error = error
        self._arrived.set()

    async def get(self) -> TimedStep:
        """Wait for the next step.

        Raises:
            Exception: the error passed to `fail`.
        """
        while not self._steps:
            if self._error is not None:
                raise self._error
            self._arrived.clear()
            await self._arrived.wait()
        return self._steps.popleft()


def _merge(older: TimedStep, newer: TimedStep) -> TimedStep:
    changes = older.event.changes + newer.event.changes
    return replace(newer, event=replace(newer.event, changes=changes))
