"""What the model expects at the masks of a canvas: one forward pass, on a model thread, and nothing is committed."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from llada_core.diffusion.guidance import num_passes
from llada_core.errors import InvalidParameterError
from llada_core.sampling.canvas import Canvas
from llada_core.sampling.prepare import Vocabulary
from llada_core.sampling.sampler import Sampler
from server.replies.denoise_events import top_logprobs
from server.replies.envelope import Envelope
from server.replies.forking import Parent
from server.replies.generation import params_object
from server.replies.usage import Usage

MAX_MASKS = 1024
"""The most masks that are read at once; with twenty tokens each, an answer of two megabytes."""

Alternatives = tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """Reads canvases, and shows what was read."""

    sampler: Sampler
    vocabulary: Vocabulary

    def require_readable(self, canvas: Canvas) -> None:
        """
        Raises:
            InvalidParameterError: the canvas has no masks, or too many.
        """
        if not 1 <= canvas.num_masked <= MAX_MASKS:
            raise InvalidParameterError(
                f"steps is 0, and the canvas has {canvas.num_masked} masks; to be read it must have 1 to {MAX_MASKS}",
                "steps",
            )

    def parts(self, canvas: Canvas) -> Generator[int, None, list[tuple[int, Alternatives]]]:
        """The work for a model thread: each mask's position and its most probable tokens."""
        positions_R, proposals = self.sampler.read(canvas)
        yield canvas.visible_length * num_passes(canvas.params.cfg_scale)
        return [(int(position), proposals.alternatives(row)) for row, position in enumerate(positions_R)]

    def usage(self, canvas: Canvas) -> Usage:
        return Usage(canvas.layout.num_prompt_tokens, 0, 0, num_passes(canvas.params.cfg_scale))

    def as_object(
        self,
        envelope: Envelope,
        canvas: Canvas,
        masks: list[tuple[int, Alternatives]],
        parent: Parent | None,
    ) -> dict[str, Any]:
        """The body of the answer. It decodes every token, so it is not for the event loop."""
        return {
            "id": envelope.id,
            "object": "reading",
            "created": envelope.created,
            "model": envelope.model,
            "mask_token_id": canvas.layout.mask_id,
            "token_ids": canvas.response,
            "masks": [
                {"position": position, "top_logprobs": top_logprobs(alternatives, self.vocabulary.tokenizer)}
                for position, alternatives in masks
            ],
            "usage": self.usage(canvas).as_score(),
            "generation_params": params_object(canvas.params),
            "parent": None if parent is None else parent.as_object(),
        }
