"""One request between the engine and its answer."""

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from llada_core.sampling.canvas import Canvas
from server.engine.scheduler import Request
from server.replies.text_stream import TextStream
from server.replies.usage import Usage


@dataclass(slots=True)
class Generation:
    """A submitted request and the text it has produced so far.

    Attributes:
        started: `time.monotonic()` of its submission, moved forward by the time it was paused.
        paused: `time.monotonic()` of the last pause; None while it runs.
    """

    request: Request
    text: TextStream
    started: float = field(default_factory=time.monotonic)
    paused: float | None = None

    @property
    def canvas(self) -> Canvas:
        """The canvas. Only its params and prompt may be read while it runs; the rest belongs to the model threads."""
        return self.request.canvas

    def pause(self) -> None:
        """Stop the clock of the time limit."""
        self.paused = time.monotonic()

    def resume(self) -> None:
        """Resume the clock of the time limit."""
        if self.paused is not None:
            self.started += time.monotonic() - self.paused
            self.paused = None

    def usage(self) -> Usage:
        """The tokens and steps so far."""
        return Usage(
            prompt_tokens=self.canvas.layout.num_prompt_tokens,
            completion_tokens=len(self.text.text_ids) - self.canvas.layout.num_given,
            denoising_steps=self.text.denoising_steps,
            forward_passes=self.text.forward_passes,
        )

    def generation_params(self) -> dict[str, Any]:
        """The settings used, defaults resolved, under the API's names."""
        params = asdict(self.canvas.params)
        params["stop_token_ids"] = sorted(params["stop_token_ids"])
        return {"max_tokens": params.pop("gen_length"), **params}
