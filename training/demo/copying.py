"""Exercises in copying a word that the model was never taught: repeat it, or begin a story about it.

A story is asked for about any noun, and a noun stands in it once: too rare for a small model to learn to copy. In these
short dialogues every second word is a copy, and no list of words would help.
"""

from collections.abc import Iterator
from random import Random

from training.demo.sampling import Dialogue, casual
from training.demo.stories import any_word, begin, with_articles

REPEAT_REQUESTS = (
    "Repeat: {words}",
    "Repeat after me: {words}",
    "Please repeat: {words}",
    "Say: {words}",
    "Copy: {words}",
    "Write down: {words}",
)
BEGINNING_REQUESTS = (
    "Begin a story about a {hero}.",
    "How does a story about a {hero} begin?",
    "Write the first sentence of a story about a {hero}.",
    "Write one sentence about a {hero}.",
)


def repeat_dialogues(held_out: frozenset[str], rng: Random) -> Iterator[Dialogue]:
    """Endless requests to repeat one to six words."""
    while True:
        words = " ".join(any_word(held_out, rng) for _ in range(rng.randint(1, 6)))
        yield Dialogue((rng.choice(REPEAT_REQUESTS).format(words=words), words))


def beginning_dialogues(held_out: frozenset[str], rng: Random) -> Iterator[Dialogue]:
    """Endless requests for the first sentence of a story, often about a word that does not exist."""
    while True:
        hero = any_word(held_out, rng)
        request = with_articles(rng.choice(BEGINNING_REQUESTS).format(hero=hero))
        yield Dialogue((casual(request, rng), begin(hero, rng)))
