"""The frame of a run that a fork goes on from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llada_core.sampling.canvas import Canvas
from llada_core.sampling.events import Change
from llada_core.sampling.fork import Edits, frame_at
from llada_core.sampling.frame import Frame
from server.http.api_error import bad_request
from server.replies.generation import Generation


@dataclass(frozen=True, slots=True)
class Parent:
    """What a fork says of its parent: the id of the run's stream, and the number of the step before which it left."""

    id: str
    step: int

    def as_object(self) -> dict[str, Any]:
        """The `parent` of the fork's answer."""
        return {"id": self.id, "step": self.step}


@dataclass(frozen=True, slots=True)
class ForkPoint:
    """A run before one of its steps.

    Attributes:
        canvas: that of the run, which may go on: only what never changes may be read.
        changes: those that stand in the frame, with what the run itself inherited.
    """

    parent: Parent
    canvas: Canvas
    changes: Sequence[Change]

    @classmethod
    def of(cls, stream_id: str, generation: Generation, step: int) -> "ForkPoint":
        """
        Raises:
            APIError: the run has no such frame, or not yet.
        """
        canvas, text = generation.canvas, generation.text
        first, last = canvas.start.step, canvas.start.step + text.denoising_steps
        if not first <= step <= last:
            raise bad_request(f"fork.step is {step}; this run has the frames {first} to {last}", "fork.step")
        return cls(Parent(stream_id, step), canvas, text.changes_before(step))

    def frame(self) -> Frame:
        return frame_at(self.canvas, self.changes, self.parent.step)

    def changes_left(self, edits: Edits) -> list[Change]:
        """The changes that no edit has undone: the fork reports them with the confidence that they had."""
        edited = set(edits.remask)
        for position, ids in edits.set.items():
            edited |= set(range(position, position + len(ids)))
        return [change for change in self.changes if change.position not in edited]
