"""Parallel rules: which proposals of a step are sure enough to be committed together.

A rule sees the proposals of the active block, best first. The best one is committed whatever the rule says.

Shape suffix: N proposals of the active block, in descending order of score.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

# (confidence_N, entropy_N, the parameter's value) → bool [N]
Choosing = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


@dataclass(frozen=True, slots=True)
class Rule:
    """A parallel rule.

    Attributes:
        reads_entropy: `choose` needs entropies, which are zeros for other rules.
    """

    choose: Choosing
    reads_entropy: bool = False


def confidence_threshold(confidence_N: np.ndarray, entropy_N: np.ndarray, threshold: float) -> np.ndarray:
    """Keep every proposal whose probability reaches the threshold (Fast-dLLM, arXiv:2505.22618)."""
    return confidence_N >= threshold


def confidence_factor(confidence_N: np.ndarray, entropy_N: np.ndarray, factor: float) -> np.ndarray:
    """Keep the longest prefix whose n-th proposal has p ≥ 1 - factor / (n + 1), stricter as n grows (Fast-dLLM)."""
    counts_N = np.arange(1, len(confidence_N) + 1)
    return np.logical_and.accumulate(confidence_N >= 1 - factor / (counts_N + 1))


def entropy_bound(confidence_N: np.ndarray, entropy_N: np.ndarray, bound: float) -> np.ndarray:
    """Keep the longest prefix with Σ H - max H ≤ bound, which bounds the error of treating them as independent.

    EB-Sampler (arXiv:2505.24857). Entropies are in nats; the paper orders positions by increasing entropy, as
    `remasking: entropy` does.
    """
    joint_N = np.cumsum(entropy_N) - np.maximum.accumulate(entropy_N)
    return np.logical_and.accumulate(joint_N <= bound)


def entropy_threshold(confidence_N: np.ndarray, entropy_N: np.ndarray, threshold: float) -> np.ndarray:
    """Keep every proposal whose distribution's entropy, in nats, is at most the threshold (dParallel, d3LLM)."""
    return entropy_N <= threshold


# The parameter that selects the rule and holds its value → the rule.
PARALLEL_RULES: Mapping[str, Rule] = {
    "confidence_threshold": Rule(confidence_threshold),
    "confidence_factor": Rule(confidence_factor),
    "entropy_bound": Rule(entropy_bound, reads_entropy=True),
    "entropy_threshold": Rule(entropy_threshold, reads_entropy=True),
}
