"""Greetings, questions about the model itself, and a little of what people say to one another."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from random import Random

from training.demo.sampling import Dialogue, casual, data_lines, shuffled_forever


@dataclass(frozen=True)
class Topic:
    """Ways to say one thing, and its answers, of which the usual one is the first."""

    weight: int
    sayings: tuple[str, ...]
    answers: tuple[str, ...]

    def exchange(self, rng: Random) -> tuple[str, str]:
        """One of the sayings, with the usual answer or sometimes another."""
        answer = self.answers[0] if rng.random() < 0.8 else rng.choice(self.answers)
        return casual(rng.choice(self.sayings), rng), answer


@cache
def topics() -> tuple[Topic, ...]:
    """All topics of the data file."""
    blocks = "\n".join(data_lines("smalltalk.txt")).removeprefix("= ").split("\n= ")
    return tuple(_topic(*block.split("\n")) for block in blocks)


def smalltalk_dialogues(rng: Random) -> Iterator[Dialogue]:
    """Endless small talk, sometimes two exchanges long."""
    weights = [topic.weight for topic in topics()]
    while True:
        count = 2 if rng.random() < 0.15 else 1
        chosen = rng.choices(topics(), weights, k=count)
        yield Dialogue(tuple(turn for topic in chosen for turn in topic.exchange(rng)))


def chitchat_dialogues(rng: Random) -> Iterator[Dialogue]:
    """Endless exchanges between people, each equally often."""
    exchanges = [tuple(line.split("\t")) for line in data_lines("chitchat.tsv")]
    for question, answer in shuffled_forever(exchanges, rng):
        yield Dialogue((casual(question, rng), answer))


def _topic(head: str, *lines: str) -> Topic:
    sayings = tuple(line[2:] for line in lines if line.startswith("? "))
    answers = tuple(line[2:] for line in lines if line.startswith("> "))
    return Topic(int(head.split(" | ")[1]), sayings, answers)
