"""Small regular texts for pretraining: counting, the days, the months, opposites, the colors of things."""

from collections.abc import Iterator
from random import Random

from training.demo.sampling import capitalized, data_lines


def sequence_documents(rng: Random) -> Iterator[str]:
    """Endless short documents, a third of them counting."""
    rows = [line.split("\t") for line in data_lines("sequences.txt")]
    while True:
        if rng.random() < 0.33:
            yield _counting(rng)
        else:
            kind, words = rng.choice(rows)
            yield words if kind == "order" else " ".join(_facts(kind, words.split(";"), rng))


def _counting(rng: Random) -> str:
    start, step = rng.randint(0, 90), rng.choice((1, 1, 1, 2, 5, 10))
    return ", ".join(str(start + step * i) for i in range(rng.randint(6, 10)))


def _facts(kind: str, entries: list[str], rng: Random) -> list[str]:
    template = {"opposite": "the opposite of {} is {}.", "color": "{} is {}.", "colors": "{} are {}."}[kind]
    return [capitalized(template.format(*entry.rsplit(" ", 1))) for entry in rng.sample(entries, 4)]
