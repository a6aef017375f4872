"""The training that a model's authors published, as far as it differs from LLaDA's."""

from dataclasses import dataclass, replace

from torch import Tensor

# The least probability with which LLaDA masks a token; it keeps 1 / p bounded.
MIN_MASK_PROBABILITY = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedTraining:
    """How the tokens of a sample are masked, and what a masked one weighs in the loss.

    Attributes:
        lowest, highest: the probability with which a sample's tokens are masked is uniform between them.
        weighs_share: a masked token weighs one over the share of the sample's targets that are masked, so that a sample
            counts by its mean; otherwise one over the probability with which they were.
        context_weight: a masked token weighs what its neighbours give it, with this p (`context_weights`), instead.
    """

    lowest: float = MIN_MASK_PROBABILITY
    highest: float = 1.0
    weighs_share: bool = False
    context_weight: float | None = None

    def mask_probability(self, t_B: Tensor) -> Tensor:
        """Return the probability with which the tokens of each sample are masked, at noise levels in [0, 1]."""
        return (self.highest - self.lowest) * t_B + self.lowest

    def within(self, lowest: float | None, highest: float | None) -> "PublishedTraining":
        """Return the same training with the probability between these; None keeps a published limit.

        Raises:
            ValueError: the lowest is above the highest.
        """
        lowest, highest = (self.lowest if lowest is None else lowest), (self.highest if highest is None else highest)
        if lowest > highest:
            raise ValueError(f"{lowest:g} is above {highest:g}")
        return replace(self, lowest=lowest, highest=highest)


LLADA_TRAINING = PublishedTraining()
