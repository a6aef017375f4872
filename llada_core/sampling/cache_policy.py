"""Which positions a step recomputes; the rest is attended to as the cache remembers it.

The first step of a block goes over the whole canvas and fills the cache, later steps recompute a window of it
(Fast-dLLM, arXiv:2505.22618, section 3.2). A new policy is one function and one line of the table.
"""

from collections.abc import Callable, Mapping

# (the active block, everything the model sees) → the positions recomputed between two refreshes
Window = Callable[[range, range], range]


def everything(block: range, visible: range) -> range:
    """No cache."""
    return visible


def prefix(block: range, visible: range) -> range:
    """Keys and values left of the block are kept."""
    return range(block.start, visible.stop)


def dual(block: range, visible: range) -> range:
    """Keys and values on both sides of the block are kept."""
    return block


WINDOWS: Mapping[str, Window] = {"none": everything, "prefix": prefix, "dual": dual}
