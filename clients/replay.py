"""A canvas that follows the events of a run, and shows it at any of its steps."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from clients.events import Change, Done, Event, Start, Step


@dataclass(slots=True)
class Replay:
    """Follows a run.

    Attributes:
        start: what was about to be denoised; None before the first event.
        steps: all steps so far.
        done: the end; None until then.
        token_ids: the canvas after the last step.
        changes: for each position the change that wrote it last; None for masks and given tokens.
    """

    start: Start | None = None
    steps: list[Step] = field(default_factory=list)
    done: Done | None = None
    token_ids: list[int] = field(default_factory=list)
    changes: list[Change | None] = field(default_factory=list)

    @classmethod
    def of(cls, events: Iterable[Event]) -> "Replay":
        """The replay of a whole run."""
        replay = cls()
        for event in events:
            replay.apply(event)
        return replay

    def apply(self, event: Event) -> None:
        """Follow one event."""
        match event:
            case Start():
                self.start, self.token_ids = event, list(event.token_ids)
                self.changes = [None] * len(event.token_ids)
                for change in event.changes:
                    self.changes[change.position] = change
            case Step():
                self.steps.append(event)
                for change in event.changes:
                    self._write(change)
            case Done():
                self.done = event

    @property
    def num_masked(self) -> int:
        """Masks on the canvas."""
        return 0 if self.start is None else self.token_ids.count(self.start.mask_token_id)

    def is_masked(self, position: int) -> bool:
        """Whether the position holds a mask now."""
        return self.start is not None and self.token_ids[position] == self.start.mask_token_id

    def at(self, num_steps: int) -> "Replay":
        """The canvas after the first `num_steps` events of steps, as a replay of its own."""
        events: list[Event] = [] if self.start is None else [self.start]
        return Replay.of([*events, *self.steps[:num_steps]])

    def _write(self, change: Change) -> None:
        assert self.start is not None
        is_mask = change.op == "remask"
        self.token_ids[change.position] = self.start.mask_token_id if is_mask else change.token_id
        self.changes[change.position] = None if is_mask else change
