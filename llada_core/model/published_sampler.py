"""The sampler that a model's authors published, as far as it differs from LLaDA's."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedSampler:
    """What a model's sampler does where a request says nothing, and what no request can say.

    Attributes:
        family: the model's name in messages.
        schedule: the schedule of a request that names none.
        scores_drawn: `remasking` scores the distribution from which tokens are drawn, after temperature, top-k and
            top-p; otherwise the model's own.
        confidence_threshold, steps_per_block: the settings of a request that names neither steps, a schedule nor a
            parallel rule; None where it gets a fixed number of steps.
    """

    family: str = "LLaDA"
    schedule: str = "uniform"
    scores_drawn: bool = False
    confidence_threshold: float | None = None
    steps_per_block: int | None = None


LLADA_SAMPLER = PublishedSampler()
