"""Short stories from a small grammar: a plot fixes the events, a lexicon fills the typed slots.

A story keeps one hero through all its sentences, and a hero has the same name in all stories. Slots are typed per plot
so that every draw makes sense, and a slot used twice in a story holds the same word.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from random import Random

from training.demo.sampling import Dialogue, capitalized, casual, data_lines

OPENINGS = (
    "Once upon a time there was a {trait} {hero} named {name}.",
    "Once there was a {trait} {hero} named {name}.",
    "{name} was a {trait} {hero} who lived near a {outdoor0}.",
    "In {town} there lived a {trait} {hero} named {name}.",
)
REQUESTS = (
    "Tell me a story about a {hero}.",
    "Tell me a story about a {hero}.",
    "Tell a story about a {hero}.",
    "Write a story about a {hero}.",
    "Write a short story about a {hero}.",
    "Tell me a short story about a {hero}.",
    "Please tell me a story about a {hero}.",
    "Can you tell me a story about a {hero}?",
    "I want to hear a story about a {hero}.",
    "A story about a {hero}, please.",
    "Tell me a story about a {hero} named {name}.",
    "Write a story about a {hero} named {name}.",
    "Tell me a story about {name} the {hero}.",
    "Tell me a story about {name}.",
)
OPEN_REQUESTS = (
    "Tell me a story.",
    "Tell me a short story.",
    "Write a story.",
    "Do you know a story?",
    "A story, please.",
)
PRONOUNS = {
    "girl": {"he": "she", "him": "her", "his": "her"},
    "boy": {"he": "he", "him": "him", "his": "his"},
}


@dataclass(frozen=True)
class Plot:
    """A course of events, one template per sentence."""

    name: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Character:
    """A character, the only one of its kind in all stories; `sex` is a key of `PRONOUNS`."""

    name: str
    sex: str


@dataclass(frozen=True)
class Story:
    """A told story and its hero, for example hero "fox" and name "Ruby"."""

    text: str
    hero: str
    name: str
    plot: str


@cache
def lexicon() -> dict[str, tuple[str, ...]]:
    """Words by slot."""
    slots = (line.split(": ", 1) for line in data_lines("lexicon.txt"))
    return {slot: tuple(word.replace("_", " ") for word in words.split()) for slot, words in slots}


@cache
def cast() -> dict[str, Character]:
    """All characters, by kind."""
    people = (line.split() for line in data_lines("cast.txt"))
    return {kind: Character(name, sex) for kind, name, sex in people}


@cache
def plots() -> tuple[Plot, ...]:
    """All plots, in the order of the file."""
    blocks = "\n".join(data_lines("plots.txt")).split("== ")[1:]
    return tuple(Plot(name, tuple(body)) for name, *body in (block.strip().split("\n") for block in blocks))


def tell(rng: Random) -> Story:
    """Draw a plot, a hero and the words of one story."""
    plot = rng.choice(plots())
    words = _cast(rng)
    sentences = [_sentence(template, words, rng) for template in (rng.choice(OPENINGS), *plot.sentences)]
    return Story(" ".join(sentences), words["hero"], words["name"], plot.name)


def story_documents(rng: Random) -> Iterator[str]:
    """Endless stories."""
    while True:
        yield tell(rng).text


def story_dialogues(rng: Random) -> Iterator[Dialogue]:
    """Endless requests, each answered by a story about the requested hero."""
    while True:
        story = tell(rng)
        requests = OPEN_REQUESTS if rng.random() < 0.1 else REQUESTS
        request = with_articles(rng.choice(requests).format(hero=story.hero, name=story.name))
        yield Dialogue((casual(request, rng), story.text))


def recognize(text: str) -> Story | None:
    """The story, if the grammar could tell it in these words; None if not.

    A word that fills a slot must fill it wherever the slot is repeated, so a recognized story has one plot, one hero
    and one name from beginning to end. Pronouns must be the hero's, and the friend must be someone else.
    """
    for name, pattern in _patterns():
        match = pattern.fullmatch(text.strip())
        if match and _fits_the_cast(match.groupdict()):
            return Story(text.strip(), match["hero"], match["name"], name)
    return None


def _fits_the_cast(words: dict[str, str]) -> bool:
    hero = cast()[words["hero"]]
    expected = {"name": hero.name, **_pronouns(hero)}
    if "palkind" in words:
        expected["pal"] = cast()[words["palkind"]].name
        if words["palkind"] == words["hero"]:
            return False
    return all(words[slot] == word for slot, word in expected.items() if slot in words)


def draw(slot: str, rng: Random) -> str:
    """A word of the slot."""
    return rng.choice(lexicon()[slot])


def _cast(rng: Random) -> dict[str, str]:
    """The words that a whole story shares: hero, friend, their names, and the hero's pronouns."""
    hero = draw(rng.choice(("animal", "animal", "person")), rng)
    palkind = _other("animal", hero, rng)
    return {
        "hero": hero,
        "name": cast()[hero].name,
        "palkind": palkind,
        "pal": cast()[palkind].name,
        **_pronouns(cast()[hero]),
    }


def _pronouns(character: Character) -> dict[str, str]:
    """The character's pronouns by slot; a capitalized slot begins a sentence."""
    pronouns = PRONOUNS[character.sex]
    return pronouns | {slot.capitalize(): word.capitalize() for slot, word in pronouns.items()}


def _other(slot: str, taken: str, rng: Random) -> str:
    """A word of the slot other than `taken`."""
    while (word := draw(slot, rng)) == taken:
        pass
    return word


def _sentence(template: str, words: dict[str, str], rng: Random) -> str:
    """Choose among the alternatives, fill the slots, and set a/an and the capital letter."""

    def word(match: re.Match[str]) -> str:
        slot = match[1]
        if slot not in words:
            words[slot] = _fresh(slot, words, rng)
        return words[slot]

    chosen = re.sub(r"\[([^]]*)\]", lambda match: rng.choice(match[1].split("|")), template)
    return capitalized(with_articles(re.sub(r"\{(\w+)\}", word, chosen)))


def _fresh(slot: str, words: dict[str, str], rng: Random) -> str:
    """A word for a new slot, if possible one that the story does not use yet."""
    base = slot.rstrip("0123456789")
    drawn = [draw(base, rng) for _ in range(4)]
    return next((word for word in drawn if word not in words.values()), drawn[-1])


def with_articles(text: str) -> str:
    """Turn "a" into "an" before a vowel sound."""
    return re.sub(r"\b([Aa]) (?=(?!uni|use|uku|ewe|one\b|euro)[aeiou]|hour|honest|honor)", r"\1n ", text)


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    """A regular expression for every opening of every plot."""
    return tuple(
        (plot.name, re.compile(_pattern(" ".join((opening, *plot.sentences)), set())))
        for plot in plots()
        for opening in OPENINGS
    )


def _pattern(template: str, seen: set[str], *, is_choice: bool = False) -> str:
    """The first occurrence of a slot is a group of its words, and later ones refer to it; a choice defines no group."""
    pattern = ""
    for part in re.split(r"(\{\w+\}|\[[^]]*\])", template):
        if part.startswith("{"):
            slot = part[1:-1]
            words = "|".join(_words(slot))
            pattern += f"(?P={slot})" if slot in seen else f"(?:{words})" if is_choice else f"(?P<{slot}>{words})"
            if not is_choice:
                seen.add(slot)
        elif part.startswith("["):
            pattern += f"(?:{'|'.join(_pattern(choice, seen, is_choice=True) for choice in part[1:-1].split('|'))})"
        else:
            pattern += re.sub(r"\b([Aa])(?=\\ )", r"\1n?", re.escape(part))
    return pattern


def _words(slot: str) -> tuple[str, ...]:
    if slot in ("name", "pal"):
        return tuple(character.name for character in cast().values())
    if slot in ("hero", "palkind"):
        return lexicon()["animal"] + lexicon()["person"]
    if slot.lower() in PRONOUNS["boy"]:
        return tuple(dict.fromkeys(_cased(words[slot.lower()], slot) for words in PRONOUNS.values()))
    return lexicon()[slot.rstrip("0123456789")]


def _cased(word: str, slot: str) -> str:
    return word.capitalize() if slot[0].isupper() else word
