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
        settings: the settings that only some samplers know, and this one does.
    """

    family: str = "LLaDA"
    schedule: str = "uniform"
    scores_drawn: bool = False
    settings: frozenset[str] = frozenset()


LLADA_SAMPLER = PublishedSampler()
