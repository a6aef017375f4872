"""Cache policies: the positions that a step recomputes. The step attends to all others as the cache holds them.

The first step of a block covers all that the model sees and fills the cache; later steps recompute a set of positions.
Only `exact` has no such step: what is left of the block is written once, by a forward pass of its own.
A new policy is a function, an entry in the table and a name in `params.Cache`.

Shape suffix: L tokens of the canvas.
"""

from collections.abc import Callable, Mapping

import numpy as np

# (the active block, all positions that the model sees, which of the canvas's positions are masked or were committed in
# the last DELAY steps) → the positions recomputed between two refreshes, ascending; the block's masks are among them
CachePolicy = Callable[[range, range, np.ndarray], np.ndarray]

# Steps during which `delayed` still recomputes a committed position: its keys and values are kept once the steps after
# its commit have seen the token.
DELAY = 1


def everything(block: range, visible: range, is_recent_L: np.ndarray) -> np.ndarray:
    """Keep nothing: no cache."""
    return np.arange(visible.stop)


def prefix(block: range, visible: range, is_recent_L: np.ndarray) -> np.ndarray:
    """Keep the keys and values left of the block (Fast-dLLM, arXiv:2505.22618, section 3.2)."""
    return np.arange(block.start, visible.stop)


def dual(block: range, visible: range, is_recent_L: np.ndarray) -> np.ndarray:
    """Keep the keys and values on both sides of the block (Fast-dLLM)."""
    return np.arange(block.start, block.stop)


def delayed(block: range, visible: range, is_recent_L: np.ndarray) -> np.ndarray:
    """Keep the keys and values of tokens, those committed in the last steps excepted (dKV-Cache, arXiv:2505.15781)."""
    return is_recent_L[: visible.stop].nonzero()[0]


def exact(block: range, visible: range, is_recent_L: np.ndarray) -> np.ndarray:
    """Keep the keys and values left of the active blocks: under block-causal attention they never change."""
    return np.arange(block.start, block.stop)


CACHE_POLICIES: Mapping[str, CachePolicy] = {
    "none": everything,
    "prefix": prefix,
    "dual": dual,
    "delayed": delayed,
    "exact": exact,
}
