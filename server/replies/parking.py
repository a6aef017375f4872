"""Denoising streams that outlive their connection, for clients that come back, or go on from one of their frames."""

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from llada_core.text.thinking import ThinkingForm
from server.replies.envelope import Envelope
from server.replies.forking import ForkPoint, Parent
from server.replies.generation import Generation

PARKING_SECONDS = 60.0
"""How long a stream is kept whose run is not finished."""
KEPT_SECONDS = 600.0
"""How long a finished one is kept."""
MAX_PARKED = 1024
MAX_PARKED_BYTES = 256 * 1024 * 1024

EventName = Literal["start", "step", "done", "error"]


@dataclass(eq=False, slots=True)
class DenoisingStream:
    """One stream of `/v1/denoise`. An event's id is its index in `events`.

    Attributes:
        key: the name of the API key to which it belongs; None without keys.
        parent: the frame of another run that it goes on from, if it is a fork.
        thinking: where thinking may be in its text; None if it has none that is told apart.
        events: the name of each event and its JSON.
        is_read: a connection is reading it now; a second one is refused.
    """

    envelope: Envelope
    generation: Generation
    key: str | None = None
    parent: Parent | None = None
    thinking: ThinkingForm | None = None
    events: list[tuple[EventName, str]] = field(default_factory=list)
    is_read: bool = False

    @property
    def is_over(self) -> bool:
        """Whether its last event has happened; a connection that comes back then gets nothing new."""
        return bool(self.events) and self.events[-1][0] in ("done", "error")

    @property
    def num_bytes(self) -> int:
        """About how much memory it takes."""
        # What the events tell is kept a second time, as objects that take about twice as much.
        events = 3 * sum(sys.getsizeof(data) for _, data in self.events)
        # The ids of its first frame and of the present one, and the step that committed each, for both.
        return events + 4 * self.generation.canvas.start.tokens.nbytes

    def fork_point(self, step: int) -> ForkPoint:
        """The frame before the run's step of this number.

        Raises:
            APIError: the run has no such frame, or not yet.
        """
        return ForkPoint.of(self.envelope.id, self.generation, step)


class Parking:
    """The streams that are being read, or were until lately. Belongs to the event loop's thread."""

    def __init__(self, on_forgotten: Callable[[Generation], None]) -> None:
        """
        Args:
            on_forgotten: called with the generation of each stream to which nobody has come back.
        """
        self._on_forgotten = on_forgotten
        self._streams: dict[str, DenoisingStream] = {}
        self._expiries: dict[str, asyncio.TimerHandle] = {}
        # Of the parked ones, which do not change.
        self._sizes: dict[str, int] = {}

    def find(self, stream_id: str, key: str | None) -> DenoisingStream | None:
        """The stream, if it is kept and belongs to the API key of this name."""
        stream = self._streams.get(stream_id)
        return stream if stream is not None and stream.key == key else None

    def claim(self, stream: DenoisingStream) -> None:
        """Give the stream to one connection; until `park` it does not expire, and no other connection may read it."""
        stream_id = stream.envelope.id
        if expiry := self._expiries.pop(stream_id, None):
            expiry.cancel()
            del self._sizes[stream_id]
        stream.is_read = True
        self._streams[stream_id] = stream

    def park(self, stream: DenoisingStream) -> None:
        """Keep the stream for a while after its connection has ended. If too many are kept, or too large, the oldest
        are dropped.
        """
        stream_id = stream.envelope.id
        stream.is_read = False
        seconds = KEPT_SECONDS if stream.is_over else PARKING_SECONDS
        self._expiries[stream_id] = asyncio.get_running_loop().call_later(seconds, self._forget, stream_id)
        self._sizes[stream_id] = stream.num_bytes
        while len(self._sizes) > MAX_PARKED or sum(self._sizes.values()) > MAX_PARKED_BYTES:
            self._forget(next(iter(self._expiries)))

    def _forget(self, stream_id: str) -> None:
        self._expiries.pop(stream_id).cancel()
        del self._sizes[stream_id]
        self._on_forgotten(self._streams.pop(stream_id).generation)
