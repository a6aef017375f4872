"""Shared by every part of the recipe: random streams, data files, and the form of a dialogue."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from random import Random
from typing import TypeVar

from training.demo.phrasings import LEAD_INS

T = TypeVar("T")

_QUESTION_WORDS = ("What", "Which", "Can you", "Do you know", "Tell me", "Name", "Explain")


@dataclass(frozen=True)
class Dialogue:
    """The turns of a conversation, alternating between user and assistant; the user's is first.

    Attributes:
        system: the system's turn before them; empty for none.
    """

    turns: tuple[str, ...]
    system: str = ""

    def messages(self) -> list[dict[str, str]]:
        """The turns in the chat format that the trainer reads."""
        turns = [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(self.turns)]
        return [{"role": "system", "content": self.system}, *turns] if self.system else turns


def stream(seed: int, part: str) -> Random:
    """A random generator for one part, so that changing the part leaves the bytes of the others."""
    return Random(f"{seed}/{part}")


def data_lines(name: str) -> list[str]:
    """The lines of a bundled data file, without comments and blank lines."""
    text = (files("training.demo") / "data" / name).read_text(encoding="ascii")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def shuffled_forever(items: Sequence[T], rng: Random) -> Iterator[T]:
    """Yield every item once per round, in a new order each round, so that facts are seen equally often."""
    while True:
        yield from rng.sample(items, len(items))


@cache
def word_lists(name: str) -> dict[str, tuple[str, ...]]:
    """The rows "kind<TAB>words" of a bundled data file, in which "_" stands for a space."""
    rows = (line.split("\t") for line in data_lines(name))
    return {kind: tuple(word.replace("_", " ") for word in words.split()) for kind, words in rows}


def capitalized(text: str) -> str:
    """The text with its first letter in upper case."""
    return text[:1].upper() + text[1:]


def casual(question: str, rng: Random) -> str:
    """The question, sometimes as people type it: after a few words, in lower case, without a punctuation mark."""
    if question.startswith(_QUESTION_WORDS) and rng.random() < 0.1:
        question = rng.choice(LEAD_INS) + question[0].lower() + question[1:]
    return question.lower().rstrip("?.!") if rng.random() < 0.12 else question
