"""Small regular texts and questions: counting, the days, the months, opposites, the colors of things."""

from collections.abc import Iterator
from random import Random

from training.demo.sampling import Dialogue, capitalized, casual, data_lines

_SENTENCES = {"opposite": "the opposite of {} is {}.", "color": "{} is {}.", "colors": "{} are {}."}
_QUESTIONS = {
    "opposite": ("What is the opposite of {}?", "What's the opposite of {}?", "The opposite of {}?"),
    "color": ("What color is {}?", "Which color is {}?", "What is the color of {}?"),
    "colors": ("What color are {}?", "Which color are {}?", "What is the color of {}?"),
}
_ORDERED = {"The days": "day", "The months": "month"}


def sequence_documents(rng: Random) -> Iterator[str]:
    """Endless short documents, a third of them counting."""
    rows = [line.split("\t") for line in data_lines("sequences.txt")]
    while True:
        if rng.random() < 0.33:
            yield _counting(rng)
        else:
            kind, words = rng.choice(rows)
            yield words if kind == "order" else " ".join(_facts(kind, rng.sample(words.split(";"), 4)))


def sequence_dialogues(rng: Random) -> Iterator[Dialogue]:
    """Endless questions: what is the opposite, what color, which day or month comes next, count.

    Each kind comes equally often, however many lines it has: the opposites are one line of seventy facts.
    """
    rows: dict[str, list[str]] = {}
    for line in data_lines("sequences.txt"):
        kind, words = line.split("\t")
        rows.setdefault(kind, []).append(words)
    while True:
        kind = rng.choice(list(rows))
        words = rng.choice(rows[kind])
        if rng.random() < 0.15:
            first, last = rng.choice(((1, 10), (1, 5), (1, 20), (rng.randint(1, 9), rng.randint(10, 20))))
            question = rng.choice((f"Count from {first} to {last}.", f"Can you count from {first} to {last}?"))
            turns = question, ", ".join(str(number) for number in range(first, last + 1)) + "."
        elif kind == "order":
            turns = _next_of(words, rng)
        else:
            entry = rng.choice(words.split(";"))
            asked, _ = entry.rsplit(" ", 1)
            turns = rng.choice(_QUESTIONS[kind]).format(asked), _facts(kind, [entry])[0]
        yield Dialogue((casual(turns[0], rng), turns[1]))


def _next_of(sentence: str, rng: Random) -> tuple[str, str]:
    """A question about a sentence that lists something in order, or for the one after a day or month."""
    subject, listed = sentence.split(" are " if " are " in sentence else " is ", 1)
    unit = _ORDERED.get(subject.rsplit(" of ", 1)[0])
    if unit is None or rng.random() < 0.3:
        return f"What {'are' if ' are ' in sentence else 'is'} {subject[0].lower()}{subject[1:]}?", sentence
    members = listed.rstrip(".").replace(" and ", ", ").split(", ")
    place = rng.randrange(len(members))
    question = rng.choice(("What {} comes after {}?", "Which {} comes after {}?", "What is the {} after {}?"))
    return question.format(unit, members[place]), f"{members[(place + 1) % len(members)]} comes after {members[place]}."


def _counting(rng: Random) -> str:
    start, step = rng.randint(0, 90), rng.choice((1, 1, 1, 2, 5, 10))
    return ", ".join(str(start + step * i) for i in range(rng.randint(6, 10)))


def _facts(kind: str, entries: list[str]) -> list[str]:
    return [capitalized(_SENTENCES[kind].format(*entry.rsplit(" ", 1))) for entry in entries]
