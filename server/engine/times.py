"""When a request reached its stages."""

import time
from dataclasses import dataclass, field


@dataclass(slots=True)
class Times:
    """The stages of a request. The time during which it was paused counts for none of the seconds.

    Attributes:
        arrived, submitted: `time.monotonic()` when the server and the engine received it.
        admitted: `time.monotonic()` when it first left the queue.
        queue_seconds: from its submission to its admission.
        first_commit_seconds: from its arrival to the end of the step that committed its first token.
        total_seconds: from its arrival to the end of its last step. Each is None until then.
        finished: `time.monotonic()` of that end.
        paused_seconds: how long it was paused in all.
    """

    arrived: float = field(default_factory=time.monotonic)
    submitted: float = field(default_factory=time.monotonic)
    admitted: float | None = None
    queue_seconds: float | None = None
    first_commit_seconds: float | None = None
    total_seconds: float | None = None
    finished: float | None = None
    paused_seconds: float = 0.0
    _paused: float | None = None

    def admit(self) -> None:
        """It has left the queue; only the first time counts."""
        if self.admitted is None:
            self.admitted = time.monotonic()
            self.queue_seconds = self.admitted - self.submitted - self.paused_seconds

    def commit(self) -> bool:
        """A step has committed tokens; returns whether they are the first."""
        is_first = self.first_commit_seconds is None
        if is_first:
            self.first_commit_seconds = self.seconds_so_far
        return is_first

    def finish(self) -> None:
        """The last step is over."""
        self.finished = time.monotonic()
        self.total_seconds = self.seconds_so_far

    def pause(self) -> None:
        """Nobody waits for it until `resume`."""
        self._paused = time.monotonic()

    def resume(self) -> None:
        if self._paused is not None:
            self.paused_seconds += time.monotonic() - self._paused
            self._paused = None

    @property
    def seconds_so_far(self) -> float:
        """The seconds since its arrival."""
        return time.monotonic() - self.arrived - self.paused_seconds
