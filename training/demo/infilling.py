"""Documents cut into a gap and the texts before and after it.

A gap's text is tokenised apart from its surroundings, so its tokens differ from those of the whole text where a space
stands at the border: "a big " and "fox" give a space and "fox", while "a big fox" gives " fox".
"""

from collections.abc import Callable, Iterator
from random import Random

from training.data.formats import FilledGap

Cut = Callable[[list[str], Random], tuple[int, int]]
"""Chooses a gap in a list of words: where it starts, and its number of words."""


def filled_gaps(texts: Iterator[str], rng: Random, *, cut: Cut | None = None) -> Iterator[FilledGap]:
    """A gap in every text that leaves something before and after it; the spaces stand on either side.

    Args:
        cut: how gaps are chosen; None for a few words mostly, and a whole sentence in three of ten.
    """
    for text in texts:
        words = text.split(" ")
        chosen = cut or (sentence if rng.random() < 0.3 else few_words)
        start, count = chosen(words, rng)
        parts = words[:start], words[start : start + count], words[start + count :]
        before, gap, after = (" ".join(part) for part in parts)
        # Most people leave the space before the gap in the text before it.
        before, gap = (f"{before} ", gap) if rng.random() < 0.7 else (before, f" {gap}")
        if after:
            gap, after = (f"{gap} ", after) if rng.random() < 0.15 else _punctuated(gap, f" {after}")
        else:
            gap, after = _punctuated(gap, "")
        if gap.strip() and after:
            yield FilledGap(before, gap, after)


def few_words(words: list[str], rng: Random) -> tuple[int, int]:
    """Where a gap of a few words starts, never with the first, and their number."""
    count = max(1, min(rng.choice((1, 1, 1, 1, 2, 2, 3, 4)), len(words) - 1))
    return rng.randint(1, max(1, len(words) - count)), count


def sentence(words: list[str], rng: Random) -> tuple[int, int]:
    """Where a whole sentence other than the first starts, and its number of words; a few words if there is none."""
    ends = [i + 1 for i, word in enumerate(words) if word.endswith((".", '."', '!"'))]
    if len(ends) < 2:
        return few_words(words, rng)
    index = rng.randrange(1, len(ends))
    return ends[index - 1], ends[index] - ends[index - 1]


def _punctuated(gap: str, after: str) -> tuple[str, str]:
    """Move the gap's last punctuation mark behind it, where a person would leave it."""
    return (gap[:-1], gap[-1] + after) if gap.endswith((".", ",", "!", "?")) and len(gap.strip()) > 1 else (gap, after)
