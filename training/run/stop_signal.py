"""Stopping a run: SIGINT, SIGTERM and SIGHUP are recorded, and the loop checks for them between steps."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from training.distributed import World


class StopSignal:
    """Whether a signal asked any process to stop; a second SIGINT leaves a single process at once."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._is_requested = False

    def is_set(self) -> bool:
        """The same answer on every process; all of them must ask at once."""
        return self._world.any(self._is_requested)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals until the block ends; what `nohup` lets a process ignore stays ignored."""
        numbers = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]
        handlers = {number: signal.signal(number, self._handle) for number in numbers}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._is_requested and number == signal.SIGINT and self._world.size == 1:
            raise KeyboardInterrupt
        if self._world.is_main and not self._is_requested:
            # Not `print`, which is not reentrant: a handler may run in the middle of one.
            os.write(2, b"\nstopping: saving a checkpoint after this step\n")
        self._is_requested = True
