"""A frame: a canvas between two steps. With settings and layout it decides all that follows.

The noise of a step is a function of (seed, step, position), so no state of a random generator belongs to it.
"""

from dataclasses import dataclass

import numpy as np

from llada_core.sampling.schedule import BlockPlan


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """All that a canvas's next steps depend on, apart from its settings and layout.

    Attributes:
        tokens: int64 ids [L], prompt included.
        step: the number of the next step.
        blocks: the blocks that have masks, left to right.
        shares: how many steps each block of the response has for its masks, the blocks without masks included.
        block_step: the number of steps already run in the first of `blocks`.
        post_steps: how many of them began without masks in it.
        commit_steps: int64 [L], see `Canvas`; None if no step has committed anything that caches depend on.
        refresh_step: the step that filled the caches last; None if the next step fills them.
    """

    tokens: np.ndarray
    step: int
    blocks: tuple[BlockPlan, ...]
    shares: tuple[int, ...]
    block_step: int = 0
    post_steps: int = 0
    commit_steps: np.ndarray | None = None
    refresh_step: int | None = None

    @property
    def num_steps(self) -> int | None:
        """The steps to the end of the schedule; None if a parallel rule decides, or nothing is masked."""
        total = sum(block.num_steps for block in self.blocks)
        return total - self.block_step if total else None
