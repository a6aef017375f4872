"""How a response is cut into blocks, and how many tokens each step of a block commits.

Shape suffix: L positions of the response.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from llada_core.errors import InvalidParameterError
from llada_core.sampling.params import GenerationParams


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """A block of the response that has masks, and how many tokens each of its steps commits.

    Attributes:
        index: among all blocks, those without masks counted too.
        start, stop: response positions.
        transfers: tokens to commit, step by step; None: a parallel rule decides.
    """

    index: int
    start: int
    stop: int
    transfers: tuple[int, ...] | None


def plan_blocks(is_masked_L: np.ndarray, block_length: int, params: GenerationParams) -> list[BlockPlan]:
    """The blocks that have masks, from left to right; the last one may be shorter.

    Raises:
        InvalidParameterError: fewer steps than blocks with masks.
    """
    length = len(is_masked_L)
    blocks = [range(start, min(start + block_length, length)) for start in range(0, length, block_length)]
    masked_per_block = [int(is_masked_L[block.start : block.stop].sum()) for block in blocks]
    shares = steps_per_block(masked_per_block, params.steps or max(1, sum(masked_per_block)))
    return [
        BlockPlan(
            index,
            block.start,
            block.stop,
            None if params.parallel_rule else tuple(transfer_schedule(masked, share)),
        )
        for index, (block, masked, share) in enumerate(zip(blocks, masked_per_block, shares, strict=True))
        if masked
    ]


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
