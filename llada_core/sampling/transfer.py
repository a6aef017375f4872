"""How many: the schedule, or the parallel rule, by which masked positions turn into tokens.

A parallel rule looks at the proposals of a step, best first, and says which are sure enough to be committed together.
Whatever it says, the best one is: a step commits at least one token.

Shape suffix: N proposals of the active block, ordered by falling score.
"""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

import numpy as np

from llada_core.errors import InvalidParameterError


def transfer_schedule(num_masked: int, steps: int) -> list[int]:
    """Tokens to commit in each step of a block: even, the remainder in front (LLaDA's `get_num_transfer_tokens`).

    A step that would commit nothing is not run, so the list may be shorter than `steps`.
    """
    base, remainder = divmod(num_masked, steps)
    return [base + (step < remainder) for step in range(min(steps, num_masked))]


def steps_per_block(masked_per_block: Sequence[int], steps: int) -> list[int]:
    """Share `steps` among blocks in proportion to their masked positions, at least one for a block that has any.

    Largest remainder, the earlier block first. A block whose share is below one gets one, and what is left is shared
    among the others; where everything divides evenly this is LLaDA's `steps // num_blocks`.

    Raises:
        InvalidParameterError: fewer steps than blocks with masks.
    """
    open_blocks = {block: masked for block, masked in enumerate(masked_per_block) if masked}
    if steps < len(open_blocks):
        raise InvalidParameterError(
            f"steps is {steps}; it must be at least the number of blocks with masked positions, {len(open_blocks)}",
            "steps",
        )
    shares = [0] * len(masked_per_block)
    while small := _blocks_below_one(open_blocks, steps):
        for block in small:
            shares[block] = 1
            del open_blocks[block]
        steps -= len(small)
    total = sum(open_blocks.values())
    quotas = {block: Fraction(masked * steps, total) for block, masked in open_blocks.items()}
    for block, quota in quotas.items():
        shares[block] = int(quota)
    left_over = steps - sum(int(quota) for quota in quotas.values())
    for block in sorted(quotas, key=lambda block: (int(quotas[block]) - quotas[block], block))[:left_over]:
        shares[block] += 1
    return shares


def _blocks_below_one(masked_per_block: dict[int, int], steps: int) -> list[int]:
    total = sum(masked_per_block.values())
    return [block for block, masked in masked_per_block.items() if masked * steps < total]


# (confidence_N, entropy_N, the parameter's value) → bool [N]
ParallelRule = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


def confidence_threshold(confidence_N: np.ndarray, entropy_N: np.ndarray, threshold: float) -> np.ndarray:
    """Every proposal whose probability reaches the threshold (Fast-dLLM, arXiv:2505.22618)."""
    return confidence_N >= threshold


def confidence_factor(confidence_N: np.ndarray, entropy_N: np.ndarray, factor: float) -> np.ndarray:
    """The longest prefix whose n-th proposal has p ≥ 1 - factor / (n + 1): the more at once, the surer (Fast-dLLM)."""
    counts_N = np.arange(1, len(confidence_N) + 1)
    return np.logical_and.accumulate(confidence_N >= 1 - factor / (counts_N + 1))


def entropy_bound(confidence_N: np.ndarray, entropy_N: np.ndarray, bound: float) -> np.ndarray:
    """The longest prefix with Σ H - max H ≤ bound, which bounds the error of treating them as independent.

    EB-Sampler (arXiv:2505.24857). Entropies in nats; the paper takes positions by rising entropy, which is
    `remasking: entropy`.
    """
    joint_N = np.cumsum(entropy_N) - np.maximum.accumulate(entropy_N)
    return np.logical_and.accumulate(joint_N <= bound)


# By the name of the parameter that asks for it.
PARALLEL_RULES: Mapping[str, ParallelRule] = {
    "confidence_threshold": confidence_threshold,
    "confidence_factor": confidence_factor,
    "entropy_bound": entropy_bound,
}
