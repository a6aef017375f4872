"""Short stories from a small grammar: a plot fixes the events, a lexicon fills the typed slots.

A hero may be any taught or untaught noun, or a word that does not exist, so that the model learns to copy the word
and not a list of heroes. What it can't decide at every place at once follows from the hero's first letter: the plot,
the friend, and the name unless the request gives one. Every story opens with the same words, since openings of
different lengths would leave the places of all that follows open. Slots are typed per plot so that every draw makes
sense, and a slot used twice in a story holds the same word.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from random import Random
from string import ascii_lowercase

from training.demo.facts import definitions
from training.demo.sampling import Dialogue, capitalized, casual, data_lines, shuffled_forever, word_lists
from training.demo.unknown import made_up

OPENING = "Once upon a time there was a {hero} named {name}."

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
)
NAMED_REQUESTS = (
    "Tell me a story about a {hero} named {name}.",
    "Write a story about a {hero} named {name}.",
    "Tell me a story about {name} the {hero}.",
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
_SHARE_OF_USUAL_HEROES = 0.25
_SHARE_OF_ANY_WORD = 0.35


@dataclass(frozen=True)
class Plot:
    """A course of events, one template per sentence."""

    name: str
    sentences: tuple[str, ...]


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
def cast() -> dict[str, str]:
    """The sex of every character, by name."""
    return dict(line.split() for line in data_lines("cast.txt"))


@cache
def usual_heroes() -> tuple[str, ...]:
    """Those whom people ask for."""
    return tuple(hero for line in data_lines("heroes.txt") for hero in line.split())


@cache
def heroes() -> tuple[str, ...]:
    """Every hero that a story may be about: the usual ones, and the nouns that take an article."""
    defined = (definition.word for definition in definitions() if definition.term.split()[0] in ("a", "an"))
    untaught = word_lists("untaught.txt")
    return tuple(dict.fromkeys((*usual_heroes(), *defined, *untaught["thing"], *untaught["common"])))


@cache
def plots() -> tuple[Plot, ...]:
    """All plots, in the order of the file."""
    blocks = "\n".join(data_lines("plots.txt")).split("== ")[1:]
    return tuple(Plot(name, tuple(body)) for name, *body in (block.strip().split("\n") for block in blocks))


def own_name(hero: str) -> str:
    """The name of a hero, which follows from its first letter: Daisy for a dog."""
    return tuple(cast())[_place(hero)]


def own_plot(hero: str) -> Plot:
    """The plot that is told of a hero, which follows from its first letter."""
    return plots()[_place(hero) % len(plots())]


def own_friend(hero: str) -> str:
    """The kind of the hero's friend, which follows from the hero's first letter and begins with another one."""
    kinds = lexicon()["palkind"]
    return kinds[_place(hero) % len(kinds)]


def _place(hero: str) -> int:
    """The place of the first letter in the alphabet, from 0."""
    return ascii_lowercase.index(hero[0])


def begin(hero: str, rng: Random) -> str:
    """Draw the first sentence of a story about a hero."""
    return _sentence(OPENING, _cast(hero, own_name(hero)), rng)


def tell(rng: Random, *, hero: str, name: str | None = None) -> Story:
    """Draw the words of one story about a hero, who has its own name if none is given."""
    plot = own_plot(hero)
    words = _cast(hero, name or own_name(hero))
    sentences = [_sentence(template, words, rng) for template in (OPENING, *plot.sentences)]
    return Story(" ".join(sentences), words["hero"], words["name"], plot.name)


def story_documents(held_out: frozenset[str], rng: Random) -> Iterator[str]:
    """Endless stories about any noun but the held-out ones."""
    for hero in _heroes(held_out, rng):
        yield tell(rng, hero=hero).text


def opening_documents(held_out: frozenset[str], rng: Random) -> Iterator[str]:
    """Endless first sentences, since people also try a single sentence."""
    for hero in _heroes(held_out, rng):
        yield begin(hero, rng)


def story_dialogues(held_out: frozenset[str], rng: Random) -> Iterator[Dialogue]:
    """Endless requests, each answered by a story about the requested hero."""
    for hero in _heroes(held_out, rng):
        draw = rng.random()
        requests = OPEN_REQUESTS if draw < 0.06 else NAMED_REQUESTS if draw < 0.16 else REQUESTS
        others = [name for name in cast() if name != own_name(own_friend(hero))]
        name = rng.choice(others) if requests is NAMED_REQUESTS else own_name(hero)
        request = with_articles(rng.choice(requests).format(hero=hero, name=name))
        yield Dialogue((casual(request, rng), tell(rng, hero=hero, name=name).text))


def any_word(held_out: frozenset[str], rng: Random) -> str:
    """A noun, a made-up word, or the beginning of one noun and the end of another; never a held-out noun."""
    while True:
        first, second = rng.choice(heroes()), rng.choice(heroes())
        draw = rng.random()
        if draw < 0.35:
            word = first
        elif draw < 0.65:
            word = made_up(rng)
        else:
            word = first[: rng.randint(1, len(first))] + second[rng.randint(0, len(second) - 1) :]
        if word not in held_out:
            return word


def _heroes(held_out: frozenset[str], rng: Random) -> Iterator[str]:
    """Endless heroes: the usual ones, all nouns equally often, and words that no list would help with."""
    usual = shuffled_forever([hero for hero in usual_heroes() if hero not in held_out], rng)
    every = shuffled_forever([hero for hero in heroes() if hero not in held_out], rng)
    while True:
        draw = rng.random()
        if draw < _SHARE_OF_ANY_WORD:
            yield any_word(held_out, rng)
        else:
            yield next(usual if draw < _SHARE_OF_ANY_WORD + _SHARE_OF_USUAL_HEROES else every)


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
    sex = cast()[words["name"]]
    expected = _pronouns(sex)
    if "palkind" in words:
        expected["pal"] = own_name(words["palkind"])
        if words["palkind"] == words["hero"] or expected["pal"] == words["name"]:
            return False
    return all(words[slot] == word for slot, word in expected.items() if slot in words)


def draw(slot: str, rng: Random) -> str:
    """A word of the slot."""
    return rng.choice(lexicon()[slot])


def _cast(hero: str, name: str) -> dict[str, str]:
    """The words that a whole story shares: hero, friend, their names, and the hero's pronouns."""
    friend = own_friend(hero)
    return {"hero": hero, "name": name, "palkind": friend, "pal": own_name(friend), **_pronouns(cast()[name])}


def _pronouns(sex: str) -> dict[str, str]:
    """The pronouns of a character by slot; a capitalized slot begins a sentence."""
    pronouns = PRONOUNS[sex]
    return pronouns | {slot.capitalize(): word.capitalize() for slot, word in pronouns.items()}


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
    """A regular expression for every plot."""
    return tuple((plot.name, re.compile(_pattern(" ".join((OPENING, *plot.sentences)), set()))) for plot in plots())


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
        return tuple(cast())
    if slot == "hero":
        return ("[a-z]+",)
    if slot.lower() in PRONOUNS["boy"]:
        return tuple(dict.fromkeys(_cased(words[slot.lower()], slot) for words in PRONOUNS.values()))
    return lexicon()[slot.rstrip("0123456789")]


def _cased(word: str, slot: str) -> str:
    return word.capitalize() if slot[0].isupper() else word
