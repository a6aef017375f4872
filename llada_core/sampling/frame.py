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
        refreshed_tokens: the tokens [L] from which the caches were filled last; None if the next step fills them.
    """

    tokens: np.ndarray
    step: int
    blocks: tuple[BlockPlan, ...]
    shares: tuple[int, ...]
    block_step: int = 0
    refreshed_tokens: np.ndarray | None = None
