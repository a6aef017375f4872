"""Denoising streams that outlive their connection: each is kept for a minute in case the client comes back."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from server.replies.envelope import Envelope
from server.replies.generation import Generation

PARKING_SECONDS = 60.0
MAX_PARKED = 1024

EventName = Literal["start", "step", "done", "error"]


@dataclass(eq=False, slots=True)
class DenoisingStream:
    """One stream of `/v1/denoise`. An event's id is its index in `events`.

    Attributes:
        is_read: a connection is reading it now; a second one is refused.
    """

    envelope: Envelope
    generation: Generation
    events: list[tuple[EventName, dict[str, Any]]] = field(default_factory=list)
    is_read: bool = False

    @property
    def is_over(self) -> bool:
        """Whether its last event has happened; a connection that comes back then gets nothing new."""
        return bool(self.events) and self.events[-1][0] in ("done", "error")


class Parking:
    """The streams that are being read, or were within the last minute. Belongs to the event loop's thread."""

    def __init__(self, on_forgotten: Callable[[Generation], None]) -> None:
        """
        Args:
            on_forgotten: called with the generation of each stream to which nobody has come back.
        """
        self._on_forgotten = on_forgotten
        self._streams: dict[str, DenoisingStream] = {}
        self._expiries: dict[str, asyncio.TimerHandle] = {}

    def find(self, stream_id: str) -> DenoisingStream | None:
        return self._streams.get(stream_id)

    def claim(self, stream: DenoisingStream) -> None:
        """Give the stream to one connection; until `park` it does not expire, and no other connection may read it."""
        stream_id = stream.envelope.id
        if expiry := self._expiries.pop(stream_id, None):
            expiry.cancel()
        stream.is_read = True
        self._streams[stream_id] = stream

    def park(self, stream: DenoisingStream) -> None:
        """Keep the stream for a minute after its connection has ended. If too many are kept, the oldest is dropped."""
        stream_id = stream.envelope.id
        stream.is_read = False
        self._expiries[stream_id] = asyncio.get_running_loop().call_later(PARKING_SECONDS, self._forget, stream_id)
        while len(self._expiries) > MAX_PARKED:
            self._forget(next(iter(self._expiries)))

    def _forget(self, stream_id: str) -> None:
        self._expiries.pop(stream_id).cancel()
        self._on_forgotten(self._streams.pop(stream_id).generation)
