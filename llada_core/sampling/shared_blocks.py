"""Finished blocks that canvases share through a prefix pool, under the cache policy `exact`.

A canvas without caches takes what the pool has, and computes the rest and what it finishes later, for others too. It
gives back what it holds of the pool when its caches are dropped.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from llada_core.model.prefix_pool import PrefixPool
from llada_core.sampling.canvas import Canvas, Restoration, passes_of
from llada_core.sampling.params import EXACT


@dataclass(slots=True)
class Filling:
    """How a canvas's caches were filled before a step.

    Attributes:
        queried: the positions of finished blocks for which the pool was asked.
        reused: those that it had.
        num_forwards: the forward passes that computed the others.
    """

    queried: int = 0
    reused: int = 0
    num_forwards: int = 0


def may_reuse(canvas: Canvas) -> bool:
    """Whether a canvas has exact caches to fill from its first position on: it is new, or has given them up."""
    return canvas.params.cache == EXACT and canvas.caches is None


def reuse_blocks(pool: PrefixPool, canvas: Canvas) -> Filling:
    """Fill a canvas's caches with its finished blocks, as far as the pool has them for every pass."""
    assert canvas.caches is not None
    for restoration in canvas.restorations():
        stop = canvas.caches[0].filled + len(restoration.window)
        reused = min(
            pool.fill(cache, tokens_L[:stop], _block_length(canvas))
            for cache, tokens_L in zip(canvas.caches, passes_of(canvas, canvas.tokens), strict=True)
        )
        for cache in canvas.caches:
            cache.filled = reused
        return Filling(queried=stop, reused=reused)
    return Filling()


def keep_blocks(pool: PrefixPool, canvas: Canvas) -> None:
    """Leave a canvas's finished blocks to others."""
    assert canvas.caches is not None
    for cache, tokens_L in zip(canvas.caches, passes_of(canvas, canvas.tokens), strict=True):
        pool.keep(cache, tokens_L, _block_length(canvas))


def without_repeats(
    restorations: Mapping[Canvas, list[Restoration]], sharing: Collection[Canvas]
) -> dict[Canvas, list[Restoration]]:
    """Leave out every canvas that lacks the same block as one before it, which it can take from the pool afterwards.

    Args:
        sharing: the canvases that take blocks from the pool.
    """
    kept: dict[Canvas, list[Restoration]] = {}
    lacking = set()
    for canvas, steps in restorations.items():
        if canvas in sharing:
            stop = int(steps[0].window[0]) + _block_length(canvas)
            block = (
                _block_length(canvas),
                *(tokens_L[:stop].tobytes() for tokens_L in passes_of(canvas, canvas.tokens)),
            )
            if block in lacking:
                continue
            lacking.add(block)
        kept[canvas] = steps
    return kept


def _block_length(canvas: Canvas) -> int:
    assert canvas.layout.block_length is not None
    return canvas.layout.block_length
