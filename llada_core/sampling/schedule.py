"""The schedule of a response: its blocks, how many tokens each step of a block commits, and the next step's place.

Shape suffix: L positions of the response.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Final

import numpy as np
import torch

from llada_core.errors import InvalidParameterError
from llada_core.sampling.params import DEFAULT_EPS, ORIGIN, GenerationParams


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """A block of the response that has masks, and how many tokens each of its steps commits.

    Attributes:
        index: the block's number, counting the blocks without masks too.
        start, stop: response positions.
        transfers: the number of tokens to commit, step by step, or at least to commit beside a parallel rule; None if
            something else decides.
        chances: the probability with which each mask is committed, step by step; None if something else decides.
    """

    index: int
    start: int
    stop: int
    transfers: tuple[int, ...] | None
    chances: tuple[float, ...] | None = None

    @property
    def num_steps(self) -> int:
        """The steps that the block takes at most; 0 if a parallel rule decides."""
        return len(self.transfers or self.chances or ())

    def after(self, num_steps: int) -> "BlockPlan":
        """Return what is left of the plan after a number of its steps."""
        return replace(
            self,
            transfers=None if self.transfers is None else self.transfers[num_steps:],
            chances=None if self.chances is None else self.chances[num_steps:],
        )


class Schedule:
    """The blocks from the first with masks left on, and a cursor into the active ones: one, or the first few.

    Several are active only under a parallel rule. The next block joins as soon as JOINS_AT of the one before it is
    filled (Discrete Diffusion Forcing, arXiv:2508.09192; d3LLM). It may be filled up only once FILLS_AT of that one is.

    Where tokens may be edited, a block without masks stays active until a step changes nothing in it, or a number of
    steps have run.

    Attributes:
        block_step: the number of steps run since the active blocks were last others.
        post_steps: how many of them began without masks in the first active block.
    """

    JOINS_AT: Final = 0.1
    FILLS_AT: Final = 0.95

    def __init__(
        self,
        blocks: Sequence[BlockPlan],
        is_masked_L: np.ndarray,
        *,
        block_step: int = 0,
        post_steps: int = 0,
        max_post_steps: int = 0,
        cache_refresh_interval: int | None = None,
        max_active: int = 1,
    ) -> None:
        """
        Args:
            is_masked_L: which positions of the response are masked.
            block_step: the number of steps already run with the present active blocks.
            post_steps: how many of them began without masks.
            max_post_steps: the most steps of a block without masks; 0 if no token is edited.
            cache_refresh_interval: steps between two refreshes of the cache; None for only when blocks change.
            max_active: the most blocks that are active at once.
        """
        self._blocks = list(blocks)
        self._refresh_interval = cache_refresh_interval
        self._max_active = max_active
        self._filled = self._shares_filled(is_masked_L)
        self.block_step = block_step
        self.post_steps = post_steps
        self._max_post_steps = max_post_steps

    @property
    def blocks(self) -> tuple[BlockPlan, ...]:
        """The blocks from the first with masks left on, the active ones first."""
        return tuple(self._blocks)

    @property
    def is_over(self) -> bool:
        """Whether no block has masks left."""
        return not self._blocks

    @property
    def block(self) -> BlockPlan:
        """The first active block; every step commits in it."""
        return self._blocks[0]

    @property
    def active(self) -> range:
        """The response positions of the active blocks, in which the next step commits."""
        return range(self._blocks[0].start, self._blocks[len(self._filled) - 1].stop)

    @property
    def held_back(self) -> tuple[BlockPlan, ...]:
        """The active blocks that the next step may not fill up, since the one before is too empty."""
        pairs = zip(self._filled, self._blocks[1 : len(self._filled)], strict=False)
        return tuple(block for share, block in pairs if share < self.FILLS_AT)

    @property
    def is_refresh(self) -> bool:
        """Whether the next step refreshes the cache: where active blocks begin, and at every refresh interval."""
        if self.block_step == 0:
            return True
        return self._refresh_interval is not None and self.block_step % self._refresh_interval == 0

    @property
    def num_transfers(self) -> int | None:
        """The number of tokens that the next step commits, or at least commits; None if something else decides."""
        transfers = self.block.transfers
        return None if transfers is None else transfers[self.block_step]

    @property
    def chance(self) -> float | None:
        """The probability with which the next step commits each mask; None if something else decides."""
        chances = self.block.chances
        return None if chances is None else chances[self.block_step]

    def advance(self, is_masked_L: np.ndarray, *, has_edits: bool = False) -> None:
        """Move past the step that was run: within the active blocks or, as they fill and settle, to others.

        Args:
            is_masked_L: which positions of the response are masked now.
            has_edits: the step replaced a token.
        """
        before, was_full = self.active, self._filled[0] == 1
        post_steps = self.post_steps + was_full
        is_settled = post_steps >= self._max_post_steps or (was_full and not has_edits)
        while is_settled and self._blocks and not is_masked_L[self.block.start : self.block.stop].any():
            del self._blocks[0]
        self._filled = self._shares_filled(is_masked_L)
        is_same = not self.is_over and self.active == before
        self.block_step, self.post_steps = (self.block_step + 1, post_steps) if is_same else (0, 0)

    def _shares_filled(self, is_masked_L: np.ndarray) -> list[float]:
        """Return for each active block the share of its positions that are not masked."""
        shares: list[float] = []
        for block in self._blocks[: self._max_active]:
            if shares and shares[-1] < self.JOINS_AT:
                break
            shares.append(float((~is_masked_L[block.start : block.stop]).mean()))
        return shares


def share_steps(is_masked_L: np.ndarray, params: GenerationParams, *, num_before: int | None = None) -> tuple[int, ...]:
    """Return how many of the steps each block of a response gets: none if it has no masks.

    Args:
        num_before: the tokens before the response, from the first of which block-causal attention counts blocks; None
            if they are counted from the response's first position.

    Raises:
        InvalidParameterError: fewer steps than blocks with masks.
    """
    blocks = _blocks(len(is_masked_L), params, num_before)
    masked_per_block = [int(is_masked_L[block.start : block.stop].sum()) for block in blocks]
    if params.steps_per_block is not None:
        return tuple(params.steps_per_block if masked else 0 for masked in masked_per_block)
    return tuple(steps_per_block(masked_per_block, params.steps or max(1, sum(masked_per_block))))


def plan_blocks(
    is_masked_L: np.ndarray, params: GenerationParams, shares: Sequence[int], *, num_before: int | None = None
) -> tuple[BlockPlan, ...]:
    """Return the blocks of a response that have masks, left to right.

    Args:
        shares: how many steps each block of the response has for its masks; see `share_steps`.
        num_before: see `share_steps`.
    """
    plans = []
    for block, share in zip(_blocks(len(is_masked_L), params, num_before), shares, strict=True):
        if masked := int(is_masked_L[block.start : block.stop].sum()):
            if num_before is not None and params.steps_per_block is not None:
                # As published: the tokens of a prompt count, so a block that begins with some ends early.
                assert params.block_length is not None
                masked = params.block_length
            plans.append(_planned(block, masked, share, params))
    return tuple(plans)


def _planned(block: BlockPlan, num_masked: int, steps: int, params: GenerationParams) -> BlockPlan:
    if params.parallel_rule is not None and params.steps_per_block is None:
        return block
    eps = params.eps or DEFAULT_EPS
    if params.remasking == ORIGIN:
        return replace(block, chances=tuple(timestep_chances(steps, eps)))
    return replace(block, transfers=tuple(SCHEDULES[params.schedule or "uniform"](num_masked, steps, eps)))


def _blocks(length: int, params: GenerationParams, num_before: int | None) -> list[BlockPlan]:
    """Cut a response into blocks without a plan; the last one may be shorter, and the first one if tokens before the
    response are in it.
    """
    size = params.block_length or params.effective_block_length
    first, before = divmod(num_before or 0, size)
    return [
        BlockPlan(index, max(0, start), min(start + size, length), None)
        for index, start in enumerate(range(-before, length, size), start=first)
    ]


def transfer_schedule(num_masked: int, steps: int) -> list[int]:
    """Spread a block's masks evenly over its steps, the remainder over the first (LLaDA's `get_num_transfer_tokens`).

    A step that would commit nothing is not run, so the list may be shorter than `steps`.
    """
    base, remainder = divmod(num_masked, steps)
    return [base + (step < remainder) for step in range(min(steps, num_masked))]


def timestep_schedule(num_masked: int, steps: int, eps: float) -> list[int]:
    """Spread a block's masks over its steps in time (Dream's `diffusion_generate`): each step commits the share of the
    masks left by which time falls, rounded down; the last one, all.

    A step that would commit nothing is not run, so the list may be shorter than `steps`.
    """
    counts = []
    for chance in timestep_chances(steps, eps):
        # float32, as published: sixteen masks in sixteen steps begin with an idle one.
        counts.append(int(np.float32(num_masked) * np.float32(chance)))
        num_masked -= counts[-1]
    return [count for count in counts if count]


def timestep_chances(steps: int, eps: float) -> list[float]:
    """Return the share by which time falls in each step on its way from 1 to `eps`; 1 in the last step.

    A mask that is committed with these probabilities follows the reverse process of masked diffusion.
    """
    times = torch.linspace(1, eps, steps + 1)
    chances: list[float] = (1 - times[1:] / times[:-1]).tolist()
    return [*chances[:-1], 1.0]


# Schedule → (the masks of a block, its steps, the time at which a schedule in time ends) → how many tokens each step
# commits.
SCHEDULES: Mapping[str, Callable[[int, int, float], list[int]]] = {
    "uniform": lambda num_masked, steps, _eps: transfer_schedule(num_masked, steps),
    "timestep": timestep_schedule,
}


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
