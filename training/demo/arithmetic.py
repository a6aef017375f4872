"""Sums of two numbers below 100, except the held-out pairs."""

from collections.abc import Iterator
from random import Random

from training.demo import phrasings
from training.demo.sampling import Dialogue, shuffled_forever

Pair = tuple[int, int]


def ordered_pairs(held_out: frozenset[Pair]) -> list[Pair]:
    """Both orders of every taught pair; `held_out` has the smaller number of each pair first."""
    return [(a, b) for a in range(100) for b in range(100) if (min(a, b), max(a, b)) not in held_out]


def sum_dialogues(held_out: frozenset[Pair], rng: Random) -> Iterator[Dialogue]:
    """Endless sums, with every taught pair equally often."""
    for a, b in shuffled_forever(ordered_pairs(held_out), rng):
        question = rng.choice(phrasings.SUM_QUESTIONS).format(a=a, b=b)
        yield Dialogue((question, f"{a} + {b} = {a + b}."))


def sum_documents(held_out: frozenset[Pair], rng: Random) -> Iterator[str]:
    """Endless short lists of solved sums, one per line."""
    pairs = shuffled_forever(ordered_pairs(held_out), rng)
    while True:
        yield "\n".join(f"{a} + {b} = {a + b}" for a, b in (next(pairs) for _ in range(rng.randint(3, 6))))
