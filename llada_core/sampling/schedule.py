"""The schedule of a response: its blocks, how many tokens each step of a block commits, and the next step's place.

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
        index: the block's number, counting the blocks without masks too.
        start, stop: response positions.
        transfers: the number of tokens to commit, step by step; None if a parallel rule decides.
    """

    index: int
    start: int
    stop: int
    transfers: tuple[int, ...] | None


class Schedule:
    """The blocks that still have masks, left to right, and a cursor into the first of them.

    Attributes:
        block_step: the number of steps run in the active block.
    """

    def __init__(
        self, blocks: Sequence[BlockPlan], *, block_step: int = 0, cache_refresh_interval: int | None = None
    ) -> None:
        """
        Args:
            block_step: the number of steps already run in the first block.
            cache_refresh_interval: steps of a block between two refreshes of its cache; None for once per block.
        """
        self._blocks = list(blocks)
        self._refresh_interval = cache_refresh_interval
        self.block_step = block_step

    @property
    def blocks(self) -> tuple[BlockPlan, ...]:
        """The blocks that have masks left, the active one first."""
        return tuple(self._blocks)

    @property
    def is_over(self) -> bool:
        """Whether no block has masks left."""
        return not self._blocks

    @property
    def block(self) -> BlockPlan:
        """The active block, in which the next step commits."""
        return self._blocks[0]

    @property
    def is_refresh(self) -> bool:
        """Whether the next step refreshes the cache: at a block's start, and at every refresh interval."""
        return self.steps_since_refresh == 0

    @property
    def steps_since_refresh(self) -> int:
        """The number of steps run since the one that refreshed the cache, that one included; 0 before a refresh."""
        return self.block_step % self._refresh_interval if self._refresh_interval else self.block_step

    @property
    def num_transfers(self) -> int | None:
        """The number of tokens that the next step commits; None if a parallel rule decides."""
        transfers = self.block.transfers
        return None if transfers is None else transfers[self.block_step]

    def advance(self, *, is_block_full: bool) -> None:
        """Move past the step that was run: within the block or, once it has no mask left, to the next block."""
        self.block_step += 1
        if is_block_full:
            del self._blocks[0]
            self.block_step = 0


def share_steps(is_masked_L: np.ndarray, params: GenerationParams) -> tuple[int, ...]:
    """Return how many of the steps each block of a response gets: none if it has no masks.

    Raises:
        InvalidParameterError: fewer steps than blocks with masks.
    """
    masked_per_block = [int(is_masked_L[block.start : block.stop].sum()) for block in _blocks(params)]
    return tuple(steps_per_block(masked_per_block, params.steps or max(1, sum(masked_per_block))))


def plan_blocks(is_masked_L: np.ndarray, params: GenerationParams, shares: Sequence[int]) -> tuple[BlockPlan, ...]:
    """Return the blocks of a response that have masks, left to right.

    Args:
        shares: how many steps each block of the response has for its masks; see `share_steps`.
    """
    plans = []
    for index, (block, share) in enumerate(zip(_blocks(params), shares, strict=True)):
        if masked := int(is_masked_L[block.start : block.stop].sum()):
            transfers = None if params.parallel_rule else tuple(transfer_schedule(masked, share))
            plans.append(BlockPlan(index, block.start, block.stop, transfers))
    return tuple(plans)


def _blocks(params: GenerationParams) -> list[range]:
    """Cut a response into blocks; the last one may be shorter."""
    length, block_length = params.gen_length, params.effective_block_length
    return [range(start, min(start + block_length, length)) for start in range(0, length, block_length)]


def transfer_schedule(num_masked: int, steps: int) -> list[int]:
    """Spread a block's masks evenly over its steps, the remainder over the first (LLaDA's `get_num_transfer_tokens`).

    A step that would commit nothing is not run, so the list may be shorter than `steps`.
    """
    base, remainder = divmod(num_masked, steps)
    return [base + (step < remainder) for step in range(min(steps, num_masked))]


def steps_per_block(masked_per_block: Sequence[int], steps: int) -> list[int]:
    """Share `steps` among blocks in proportion to their masked positions, at least one per block that has any.

    The largest remainder takes precedence; on a tie, the earlier block. A block whose share is below one gets one, and
    the others share the rest. Where everything divides evenly this is LLaDA's `steps // num_blocks`.

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
