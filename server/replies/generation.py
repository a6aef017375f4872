"""One request between the engine and its answer."""

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from llada_core.sampling.canvas import Canvas
from server.engine.scheduler import Request
from server.replies.text_stream import TextStream


@dataclass(slots=True)
class Generation:
    """One admitted request: what was asked, and what has come of it so far."""

    id: str
    request: Request
    text: TextStream
    created: int = field(default_factory=lambda: int(time.time()))
    started: float = field(default_factory=time.monotonic)
    paused: float | None = None

    @property
    def canvas(self) -> Canvas:
        """For what never changes while it runs: params, prompt. The rest belongs to the model thread."""
        return self.request.canvas

    def pause(self) -> None:
        """Its client is gone: from now on it does not run, and its time limit stands still."""
        self.paused = time.monotonic()

    def resume(self) -> None:
        """Its client is back."""
        if self.paused is not None:
            self.started += time.monotonic() - self.paused
            self.paused = None

    def usage(self) -> dict[str, int]:
        """Tokens of prompt and text (not of the canvas), and the work they took."""
        prompt_tokens = self.canvas.layout.num_prompt_tokens
        completion_tokens = len(self.text.text_ids) - self.canvas.layout.num_given
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "denoising_steps": self.text.denoising_steps,
            "forward_passes": self.text.forward_passes,
        }

    def generation_params(self) -> dict[str, Any]:
        """The settings used, defaults resolved, under the API's names."""
        params = asdict(self.canvas.params)
        params["stop_token_ids"] = sorted(params["stop_token_ids"])
        return {"max_tokens": params.pop("gen_length"), **params}
