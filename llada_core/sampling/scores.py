"""The scores by which a step ranks its proposals: the highest are committed, the rest stay masked (`remasking`).

Every strategy scores the R proposals of a step from their logits and the confidence of the proposed token. A new
strategy is a function, an entry in the table and a name in `params.Remasking`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

# (logits_RV in float32, confidence_R of the proposals, a function that draws a uniform number for each) → score_R
Scoring = Callable[[Tensor, Tensor, Callable[[], Tensor]], Tensor]


@dataclass(frozen=True, slots=True)
class Score:
    """A strategy.

    Attributes:
        reads_logits: `compute` needs the logits without the ban on ids that are never proposed.
        is_confidence: the score is the confidence of the proposed token, not a property of the position.
    """

    compute: Scoring
    reads_logits: bool = False
    is_confidence: bool = False


def low_confidence(logits_RV: Tensor, confidence_R: Tensor, draw: Callable[[], Tensor]) -> Tensor:
    """Score by probability, so that the least probable proposals stay masked (arXiv:2502.09992, section 2.4)."""
    return confidence_R


def random(logits_RV: Tensor, confidence_R: Tensor, draw: Callable[[], Tensor]) -> Tensor:
    """Score at random, as the reverse process does in theory."""
    return draw()


def origin(logits_RV: Tensor, confidence_R: Tensor, draw: Callable[[], Tensor]) -> Tensor:
    """Score at random; each proposal is committed with a probability of its own (Dream's `origin`)."""
    return draw()


def margin(logits_RV: Tensor, confidence_R: Tensor, draw: Callable[[], Tensor]) -> Tensor:
    """Score by the lead of the most probable token over the second (Dream)."""
    top_two_R2 = logits_RV.softmax(dim=-1).topk(2, dim=-1).values
    return top_two_R2[:, 0] - top_two_R2[:, 1]


def entropy(logits_RV: Tensor, confidence_R: Tensor, draw: Callable[[], Tensor]) -> Tensor:
    """Score by the negative entropy of the distribution (Dream)."""
    return -shannon_entropy(logits_RV)


def shannon_entropy(logits_RV: Tensor) -> Tensor:
    """Return the entropy of softmax(logits) in nats, [R]."""
    # log Z - Σ p x with x below the largest logit: a fourth of the time of torch's `entr`, which takes a logarithm of
    # every p. Below e^-87 there are no normal float32 numbers, with which a CPU is slow; -∞ would give 0 · ∞.
    shifted_RV = (logits_RV - logits_RV.amax(dim=-1, keepdim=True)).clamp_(min=-87.0)
    powers_RV = shifted_RV.exp()
    sums_R = powers_RV.sum(dim=-1)
    return sums_R.log() - shifted_RV.mul_(powers_RV).sum(dim=-1) / sums_R


SCORES: Mapping[str, Score] = {
    "low_confidence": Score(low_confidence, is_confidence=True),
    "random": Score(random),
    "margin": Score(margin, reads_logits=True),
    "entropy": Score(entropy, reads_logits=True),
    "origin": Score(origin),
}
