"""Cache policies: the positions that a step recomputes. The step attends to all others as the cache holds them.

The first step of a block covers the whole canvas and fills the cache; later steps recompute a window of it
(Fast-dLLM, arXiv:2505.22618, section 3.2). A new policy is a function, an entry in the table and a name in
`params.Cache`.
"""

from collections.abc import Callable, Mapping

# (the active block, all positions that the model sees) → the positions recomputed between two refreshes
CachePolicy = Callable[[range, range], range]


def everything(block: range, visible: range) -> range:
    """Keep nothing: no cache."""
    return visible


def prefix(block: range, visible: range) -> range:
    """Keep the keys and values left of the block."""
    return range(block.start, visible.stop)


def dual(block: range, visible: range) -> range:
    """Keep the keys and values on both sides of the block."""
    return block


CACHE_POLICIES: Mapping[str, CachePolicy] = {"none": everything, "prefix": prefix, "dual": dual}
