"""The pace of a film: which step of each run is shown at a time. One clock for the terminal, the .cast and the GIF."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from clients.replay import Replay
from clients.terminal.recording import Recording

FRAME_SECONDS = 1 / 20
_SHORT_FILM_SECONDS = 3.0
_FASTEST_STEP, _SLOWEST_STEP = 0.02, 0.3

# How many times faster than the usual pace; None shows every step when it came.
Speed = float | None


@dataclass(slots=True)
class Shown:
    """A run as far as it is shown.

    Attributes:
        recording: the run.
        replay: the canvas that is shown.
        num_fresh: how many steps were added to it last.
    """

    recording: Recording
    replay: Replay = field(default_factory=Replay)
    num_fresh: int = 0

    @property
    def is_over(self) -> bool:
        return self.replay.done is not None

    @property
    def has_next(self) -> bool:
        """Whether the step after the shown ones has arrived."""
        return len(self.replay.steps) < len(self.recording.replay.steps)

    @property
    def next_elapsed(self) -> float:
        """The seconds after which the next step came."""
        return self.recording.replay.steps[len(self.replay.steps)].elapsed_ms / 1000

    @property
    def is_waiting(self) -> bool:
        """Whether everything that arrived is shown and more is to come."""
        return not self.has_next and self.recording.replay.done is None

    def show_step(self) -> None:
        self.replay.apply(self.recording.replay.steps[len(self.replay.steps)])
        self.num_fresh += 1

    def show_end(self) -> bool:
        """Show the end if it is next; whether it was."""
        done = self.recording.replay.done
        if done is None or self.has_next or self.is_over:
            return False
        self.replay.apply(done)
        return True


class Playback:
    """Shows runs side by side: paced, they take each step together; live, each step comes when it came.

    Attributes:
        shown: the runs, as far as they are shown.
        speed: how many times faster than the usual pace; None is live.
        seconds: how long the film has lasted.
    """

    def __init__(self, recordings: Sequence[Recording], speed: Speed) -> None:
        self.shown = [Shown(recording) for recording in recordings]
        self.speed = speed
        self.seconds = 0.0
        self._began: float | None = None
        self._due = 0.0

    @property
    def is_over(self) -> bool:
        return all(shown.is_over for shown in self.shown)

    def advance(self, now: float) -> bool:
        """Show what is due at this time; whether anything changed."""
        if self._began is None:
            return self._begin(now)
        self.seconds = now - self._began
        before = [len(shown.replay.steps) for shown in self.shown]
        fresh = [shown.num_fresh for shown in self.shown]
        for shown in self.shown:
            shown.num_fresh = 0
        if self.speed is None:
            self._show_what_came()
        else:
            self._show_what_is_due(now, self.speed)
        has_ended = [shown.show_end() for shown in self.shown]
        for shown, count, steps in zip(self.shown, fresh, before, strict=True):
            if len(shown.replay.steps) == steps:  # the newest step stays the newest until there is another
                shown.num_fresh = count
        return any(has_ended) or before != [len(shown.replay.steps) for shown in self.shown]

    def _begin(self, now: float) -> bool:
        starts = [shown.recording.replay.start for shown in self.shown]
        if any(start is None for start in starts):
            return False
        for shown, start in zip(self.shown, starts, strict=True):
            assert start is not None
            shown.replay.apply(start)
        self._began = now
        self._due = now + self._interval(self.speed or 1.0)
        return True

    def _show_what_came(self) -> None:
        for shown in self.shown:
            while shown.has_next and shown.next_elapsed <= self.seconds:
                shown.show_step()

    def _show_what_is_due(self, now: float, speed: float) -> None:
        while self._due <= now:
            if not any(shown.has_next for shown in self.shown) or any(shown.is_waiting for shown in self.shown):
                self._due = now  # the model is slower than the pace: what is late does not hurry what follows
                return
            for shown in self.shown:
                if shown.has_next:
                    shown.show_step()
            self._due += self._interval(speed)

    def _interval(self, speed: float) -> float:
        longest = max(_expected_steps(shown.recording.replay) for shown in self.shown)
        seconds = _SHORT_FILM_SECONDS / max(longest, 1)
        return min(max(seconds, _FASTEST_STEP), _SLOWEST_STEP) / speed


def film(recordings: Sequence[Recording], speed: Speed) -> Iterator[tuple[float, Playback]]:
    """Every moment at which finished runs look different, in seconds from the start, with the one playback."""
    playback = Playback(recordings, speed)
    frame = 0
    while not playback.is_over:
        if playback.advance(frame * FRAME_SECONDS):
            yield frame * FRAME_SECONDS, playback
        frame += 1


def _expected_steps(replay: Replay) -> int:
    if replay.done is not None:
        return len(replay.steps)
    assert replay.start is not None
    masks = replay.start.token_ids.count(replay.start.mask_token_id)
    return replay.start.steps or masks
