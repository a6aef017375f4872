"""The number of tokens in a request and its answer, and the work they took."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Usage:
    """The usage of one generation or of an answer. Completion tokens are counted in the text, not on the canvas.

    Attributes:
        reasoning_tokens: those completion tokens that begin within thinking, where an answer has it apart.
    """

    prompt_tokens: int
    completion_tokens: int
    denoising_steps: int
    forward_passes: int
    cache_passes: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @classmethod
    def of_choices(cls, usages: Iterable["Usage"], *, choices_per_prompt: int) -> "Usage":
        """The sum over all choices of an answer; each prompt counts once, however many choices follow it."""
        usages = list(usages)
        starts = range(0, len(usages), choices_per_prompt)
        return cls(
            prompt_tokens=sum(usage.prompt_tokens for usage in usages) // choices_per_prompt,
            completion_tokens=sum(usage.completion_tokens for usage in usages),
            denoising_steps=sum(usage.denoising_steps for usage in usages),
            forward_passes=sum(usage.forward_passes for usage in usages),
            cache_passes=sum(usage.cache_passes for usage in usages),
            reasoning_tokens=sum(usage.reasoning_tokens for usage in usages),
            # The choices of a prompt take it from the first of them, which may have had to compute it.
            cached_tokens=sum(
                min(usage.cached_tokens for usage in usages[start : start + choices_per_prompt]) for start in starts
            ),
        )

    def as_completion(self) -> dict[str, Any]:
        """The `usage` of completions, chat completions and `/v1/denoise`."""
        return {
            **self.as_score(),
            "cache_passes": self.cache_passes,
            "denoising_steps": self.denoising_steps,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
        }

    def as_response(self) -> dict[str, Any]:
        """The `usage` of a response object, under OpenAI's newer names."""
        return {
            "input_tokens": self.prompt_tokens,
            "input_tokens_details": {"cached_tokens": self.cached_tokens, "cache_write_tokens": 0},
            "output_tokens": self.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": self.reasoning_tokens},
            "total_tokens": self.total_tokens,
            "denoising_steps": self.denoising_steps,
            "forward_passes": self.forward_passes,
            "cache_passes": self.cache_passes,
        }

    def as_decision(self) -> dict[str, Any]:
        """The `usage` of decisions: that of a response, to which no denoising step contributes."""
        steps = ("denoising_steps", "cache_passes")
        return {name: value for name, value in self.as_response().items() if name not in steps}

    def as_score(self) -> dict[str, int]:
        """The `usage` of a score, to which no denoising step contributes."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.total_tokens,
            "forward_passes": self.forward_passes,
        }
