"""One request between the engine and its answer."""

from dataclasses import asdict, dataclass
from typing import Any

from llada_core.sampling.canvas import Canvas
from llada_core.sampling.params import GenerationParams
from server.engine.scheduler import Request
from server.replies.text_stream import TextStream
from server.replies.usage import Usage


@dataclass(slots=True)
class Generation:
    """A submitted request and the text it has produced so far.

    Attributes:
        finish_reason: how it ended: that of its text, or `error`, `timeout` or `cancelled`; None while it may go on.
    """

    request: Request
    text: TextStream
    finish_reason: str | None = None

    @property
    def canvas(self) -> Canvas:
        """The canvas. Only its params and prompt may be read while it runs; the rest belongs to the model threads."""
        return self.request.canvas

    @property
    def started(self) -> float:
        """`time.monotonic()` of its submission, moved forward by the time it was paused."""
        return self.request.times.submitted + self.request.times.paused_seconds

    def usage(self) -> Usage:
        """The tokens and steps so far."""
        return Usage(
            prompt_tokens=self.canvas.layout.num_prompt_tokens,
            completion_tokens=len(self.text.text_ids) - self.canvas.layout.num_given,
            denoising_steps=self.text.denoising_steps,
            forward_passes=self.text.forward_passes,
            cache_passes=self.text.cache_passes,
            cached_tokens=self.text.cached_tokens,
        )

    def generation_params(self) -> dict[str, Any]:
        """The settings used, defaults resolved, under the API's names."""
        return params_object(self.canvas.params)


def params_object(params: GenerationParams) -> dict[str, Any]:
    """Settings as answers show them."""
    data = asdict(params)
    data["stop_token_ids"] = sorted(data["stop_token_ids"])
    return {"max_tokens": data.pop("gen_length"), **data}
