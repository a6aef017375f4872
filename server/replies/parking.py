"""Denoising streams that outlive their connection, kept until the client comes back or a minute is over."""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Literal

from server.replies.generation import Generation

PARKING_SECONDS = 60.0
MAX_PARKED = 1024

EventName = Literal["start", "step", "done", "error"]


@dataclass(eq=False, slots=True)
class DenoisingStream:
    """One stream of `/v1/denoise`. An event's id is its index in `events`.

    Attributes:
        is_read: a connection is reading it now; a second one must wait.
    """

    generation: Generation
    events: list[tuple[EventName, dict[str, Any]]] = field(default_factory=list)
    is_read: bool = False

    @property
    def is_over(self) -> bool:
        """Its last event is there: nothing will follow, whoever asks for it again."""
        return bool(self.events) and self.events[-1][0] in ("done", "error")


class Parking:
    """The streams that are read now, or were within the last minute. Belongs to the event loop's thread."""

    def __init__(self) -> None:
        self._streams: dict[str, DenoisingStream] = {}
        self._expiries: dict[str, asyncio.TimerHandle] = {}

    def find(self, stream_id: str) -> DenoisingStream | None:
        return self._streams.get(stream_id)

    def take_out(self, stream: DenoisingStream) -> None:
        """A connection begins to read the stream; until `park` it is kept and nobody else's."""
        stream_id = stream.generation.id
        if expiry := self._expiries.pop(stream_id, None):
            expiry.cancel()
        stream.is_read = True
        self._streams[stream_id] = stream

    def park(self, stream: DenoisingStream) -> None:
        """The connection has ended; keep the stream for a minute. The oldest goes where there are too many."""
        stream_id = stream.generation.id
        stream.is_read = False
        self._expiries[stream_id] = asyncio.get_running_loop().call_later(PARKING_SECONDS, self._forget, stream_id)
        while len(self._expiries) > MAX_PARKED:
            self._forget(next(iter(self._expiries)))

    def _forget(self, stream_id: str) -> None:
        self._expiries.pop(stream_id).cancel()
        del self._streams[stream_id]
