"""Greetings, questions about the model itself, and the honest answer to questions that it was not taught."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from random import Random

from training.demo.facts import countries
from training.demo.sampling import Dialogue, casual, data_lines

UNKNOWN_ANSWER = "I do not know that. I am a small demo model."


@dataclass(frozen=True)
class Topic:
    """Ways to say one thing, and its answers, of which the usual one is the first."""

    weight: int
    sayings: tuple[str, ...]
    answers: tuple[str, ...]

    def exchange(self, rng: Random) -> tuple[str, str]:
        """One of the sayings, with the usual answer or sometimes another."""
        answer = self.answers[0] if rng.random() < 0.6 else rng.choice(self.answers)
        return casual(rng.choice(self.sayings), rng), answer


@cache
def topics() -> tuple[Topic, ...]:
    """All topics of the data file."""
    blocks = "\n".join(data_lines("smalltalk.txt")).removeprefix("= ").split("\n= ")
    return tuple(_topic(*block.split("\n")) for block in blocks)


def smalltalk_dialogues(rng: Random) -> Iterator[Dialogue]:
    """Endless small talk, half of it about unknown topics, sometimes two exchanges long."""
    weights = [topic.weight for topic in topics()]
    while True:
        if rng.random() < 0.5:
            yield Dialogue((casual(unknown_question(rng), rng), UNKNOWN_ANSWER))
            continue
        count = 2 if rng.random() < 0.15 else 1
        chosen = rng.choices(topics(), weights, k=count)
        yield Dialogue(tuple(turn for topic in chosen for turn in topic.exchange(rng)))


def unknown_question(rng: Random) -> str:
    """A question that the model was not taught to answer."""
    forms, slots = _unknown()
    return re.sub(r"\{(\w+)\}", lambda match: rng.choice(slots[match[1]]), rng.choice(forms))


@cache
def _unknown() -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    rows = [line.split("\t") for line in data_lines("unknown.txt")]
    slots = {kind: tuple(w.replace("_", " ") for w in words.split()) for kind, words in rows if kind != "form"}
    slots["country"] = tuple(country.country for country in countries())
    return tuple(text for kind, text in rows if kind == "form"), slots


def _topic(head: str, *lines: str) -> Topic:
    sayings = tuple(line[2:] for line in lines if line.startswith("? "))
    answers = tuple(line[2:] for line in lines if line.startswith("> "))
    return Topic(int(head.split(" | ")[1]), sayings, answers)
