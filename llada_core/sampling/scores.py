"""Remasking: which of a step's proposals are kept. The highest scores are committed, the rest stay masked.

Every strategy scores the R proposals of a step from their logits and the confidence of the proposed token. A new rule
is one function and one line of the table.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

# (logits_RV in float32, confidence_R of the proposals, a draw uniform in (0, 1) for each) → score_R
RemaskingStrategy = Callable[[Tensor, Tensor, Callable[[], Tensor]], Tensor]


def low_confidence(logits_RV: Tensor, confidence_R: Tensor, draw: Callable[[], Tensor]) -> Tensor:
    """The proposals of lowest probability stay masked (arXiv:2502.09992, section 2.4)."""
    return confidence_R


def random(logits_RV: Tensor, confidence_R: Tensor, draw: Callable[[], Tensor]) -> Tensor:
    """A random choice, as the reverse process in theory asks for."""
    return draw()


def margin(logits_RV: Tensor, confidence_R: Tensor, draw: Callable[[], Tensor]) -> Tensor:
    """How far the most probable token is ahead of the second (Dream)."""
    top_two_R2 = logits_RV.softmax(dim=-1).topk(2, dim=-1).values
    return top_two_R2[:, 0] - top_two_R2[:, 1]


def entropy(logits_RV: Tensor, confidence_R: Tensor, draw: Callable[[], Tensor]) -> Tensor:
    """The negative entropy of the distribution (Dream)."""
    return -shannon_entropy(logits_RV)


def shannon_entropy(logits_RV: Tensor) -> Tensor:
    """The entropy of softmax(logits) in nats, [R]."""
    return torch.special.entr(logits_RV.softmax(dim=-1)).sum(dim=-1)


REMASKING: Mapping[str, RemaskingStrategy] = {
    "low_confidence": low_confidence,
    "random": random,
    "margin": margin,
    "entropy": entropy,
}
