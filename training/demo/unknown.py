"""Questions that the model is not taught to answer, and the honest reply to them.

A model that knows a few hundred words must have seen many more that it does not know: lists of real ones, and made-up
ones without end, in the very phrasings in which it is asked for what it knows.
"""

import re
from collections.abc import Iterator
from functools import cache
from random import Random

from training.demo import phrasings
from training.demo.facts import countries, definitions
from training.demo.sampling import Dialogue, capitalized, casual, data_lines, word_lists

UNKNOWN_ANSWER = "I don't know that. I am a small demo model."


def unknown_dialogues(held_out: frozenset[str], rng: Random) -> Iterator[Dialogue]:
    """Endless out-of-scope questions, now and then as the second question after one about a capital.

    Args:
        held_out: words and places that are never asked for.
    """
    while True:
        turns: tuple[str, ...] = ()
        question = unknown_question(held_out, rng)
        if rng.random() < 0.06:
            country = rng.choice(countries())
            turns = (country.say(phrasings.CAPITAL_QUESTION), country.say(phrasings.CAPITAL_ANSWER))
            place = capitalized(_unknown_place(held_out, rng))
            question = rng.choice(phrasings.FOLLOW_UPS).format(country=place)
        yield Dialogue((*turns, casual(question, rng), UNKNOWN_ANSWER))


def unknown_question(held_out: frozenset[str], rng: Random) -> str:
    """A question that the model was not taught to answer."""
    draw = rng.random()
    if draw < 0.33:
        return word_question(rng.choice(phrasings.DEFINITION_QUESTIONS), _unknown_word(held_out, rng))
    if draw < 0.58:
        # The usual wording as often as of a known place: else the wording itself would say that the place is known.
        is_usual = rng.random() < phrasings.SHARE_OF_CAPITAL_QUESTION
        question = phrasings.CAPITAL_QUESTION if is_usual else rng.choice(phrasings.CAPITAL_QUESTIONS)
        return capitalized(
            question.replace("{country}'s", "the {country}").format(country=_unknown_place(held_out, rng))
        )
    if draw < 0.67:
        a, b, c, d = rng.randint(100, 9999), rng.randint(0, 9999), rng.randint(1, 99), rng.randint(1, 12)
        return rng.choice(phrasings.LARGE_NUMBER_QUESTIONS).format(a=a, b=b, c=c, d=d)
    forms, slots = _forms()
    return re.sub(r"\{(\w+)\}", lambda match: _fill(match[1], slots, held_out, rng), rng.choice(forms))


def untaught(kind: str) -> tuple[str, ...]:
    """Real words that are not taught.

    Args:
        kind: `thing` and `common` take an article, `abstract` takes none; `place` and `elsewhere` are names.
    """
    return word_lists("untaught.txt")[kind]


def word_question(template: str, word: str) -> str:
    """A definition question about a word that is a thing, or abstract."""
    is_thing = word not in untaught("abstract")
    term = f"{'an' if word[0] in 'aeiou' else 'a'} {word}" if is_thing else word
    return capitalized(template.format(term=term, word=word))


@cache
def _taught() -> frozenset[str]:
    return frozenset((*(d.word for d in definitions()), *(c.country.lower() for c in countries())))


def _unknown_word(held_out: frozenset[str], rng: Random) -> str:
    draw = rng.random()
    if draw < 0.3:
        return made_up(rng)
    if draw < 0.5:
        return _lookalike(rng.choice(definitions()).word, held_out, rng)
    return _other_than(held_out, untaught("abstract") if draw < 0.62 else _things(), rng)


def _things() -> tuple[str, ...]:
    return (*untaught("thing"), *untaught("common"))


def _unknown_place(held_out: frozenset[str], rng: Random) -> str:
    draw = rng.random()
    if draw < 0.35:
        return made_up(rng).capitalize() + rng.choice(("", "", "", "ia", "land", "stan", " City", "ville"))
    if draw < 0.55:
        return _lookalike(rng.choice(countries()).country, held_out, rng)
    return _other_than(held_out, (*untaught("place"), *untaught("elsewhere")), rng)


def made_up(rng: Random) -> str:
    """A made-up noun."""
    parts = word_lists("syllables.txt")
    codas = ("", "", "", *parts["coda"])
    while True:
        syllables = (
            rng.choice(parts["onset"]) + rng.choice(parts["vowel"]) + rng.choice(codas)
            for _ in range(rng.choice((1, 2, 2, 3)))
        )
        if len(word := "".join(syllables)) > 3 and word not in _taught():
            return word


def _lookalike(word: str, held_out: frozenset[str], rng: Random) -> str:
    """A word with the beginning or the end of a taught one: "denbrol" after "dentist".

    At most half of the taught word is kept: a word that differs in one letter teaches not to know the taught one.
    """
    while True:
        part, kept = made_up(rng), rng.randint(1, len(word) // 2)
        is_beginning = rng.random() < 0.5
        other = word[:kept] + part[: rng.randint(2, 6)] if is_beginning else part[: rng.randint(2, 5)] + word[-kept:]
        other = other.strip().capitalize() if word[0].isupper() else other.strip()
        # A plural of what is taught is known.
        if len(other) > 2 and other not in held_out and not {other.lower(), other.lower().rstrip("s")} & _taught():
            return other


def _other_than(held_out: frozenset[str], words: tuple[str, ...], rng: Random) -> str:
    while (word := rng.choice(words)) in held_out:
        pass
    return word


def _fill(slot: str, slots: dict[str, tuple[str, ...]], held_out: frozenset[str], rng: Random) -> str:
    if slot == "word":
        words = (_things(), tuple(definition.word for definition in definitions()))
        return _other_than(held_out, rng.choice(words), rng)
    return rng.choice(slots[slot])


@cache
def _forms() -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    rows = [line.split("\t") for line in data_lines("unknown.txt")]
    slots = {kind: tuple(w.replace("_", " ") for w in words.split()) for kind, words in rows if kind != "form"}
    slots["country"] = tuple(country.country for country in countries())
    return tuple(text for kind, text in rows if kind == "form"), slots
