"""Capitals and definitions: few facts, each in many phrasings, which is how a small model learns them."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from random import Random

from training.demo import phrasings
from training.demo.sampling import Dialogue, capitalized, casual, data_lines, shuffled_forever

_DEFINITION = "{term} is {gloss}."


@dataclass(frozen=True)
class Country:
    """A taught country, with its name as used within a sentence ("the Netherlands")."""

    country: str
    capital: str
    continent: str

    @property
    def answer(self) -> str:
        """What is asked for."""
        return self.capital

    def say(self, template: str) -> str:
        """The template about this country, as a sentence."""
        possessive = self.country + ("'" if self.country.endswith("s") else "'s")
        filled = template.replace("{country}'s", possessive)
        return capitalized(filled.format(country=self.country, capital=self.capital, continent=self.continent))


@dataclass(frozen=True)
class Definition:
    """A taught word: its term as used in a question ("a river"), and the gloss that follows "is"."""

    term: str
    gloss: str

    @property
    def answer(self) -> str:
        """What is asked for."""
        return self.gloss

    @property
    def word(self) -> str:
        """The bare word, "river" of "a river"."""
        return self.term.split()[-1]

    def say(self, template: str) -> str:
        """The template about this word, as a sentence."""
        return capitalized(template.format(term=self.term, word=self.word, gloss=self.gloss))


@cache
def countries() -> tuple[Country, ...]:
    """The taught countries."""
    return tuple(Country(*line.split("\t")) for line in data_lines("capitals.tsv"))


@cache
def definitions() -> tuple[Definition, ...]:
    """The taught words."""
    return tuple(Definition(*line.split("\t")) for line in data_lines("definitions.tsv"))


def capital_dialogues(held_out: frozenset[tuple[str, str]], rng: Random) -> Iterator[Dialogue]:
    """Endless questions about countries, each equally often; now and then a second question follows.

    Args:
        held_out: pairs of countries that are never asked for one after the other.
    """
    for country in shuffled_forever(countries(), rng):
        question, answer = _country_question(country, rng)
        turns = [casual(country.say(question), rng), country.say(answer)]
        if answer == phrasings.CAPITAL_ANSWER and rng.random() < 0.15:
            other = rng.choice([c for c in countries() if (country.country, c.country) not in held_out])
            turns += [casual(other.say(rng.choice(phrasings.FOLLOW_UPS)), rng), other.say(answer)]
        yield Dialogue(tuple(turns))


def capital_documents(rng: Random) -> Iterator[str]:
    """Endless notes of one to five statements, about one country or the capitals of several."""
    for country in shuffled_forever(countries(), rng):
        if rng.random() < 0.6:
            statements = rng.sample(phrasings.CAPITAL_STATEMENTS, rng.randint(1, 4))
            yield " ".join(country.say(statement) for statement in statements)
        else:
            group = [country, *rng.sample([c for c in countries() if c != country], rng.randint(2, 4))]
            statement = rng.choice(phrasings.CAPITAL_STATEMENTS[:5])
            yield " ".join(member.say(statement) for member in group)


def definition_dialogues(rng: Random) -> Iterator[Dialogue]:
    """Endless questions about the taught words, each equally often."""
    for definition in shuffled_forever(definitions(), rng):
        question = casual(definition.say(rng.choice(phrasings.DEFINITION_QUESTIONS)), rng)
        turns = [question, definition.say(_DEFINITION)]
        if rng.random() < 0.06:
            other = rng.choice(definitions())
            turns += [casual(other.say(rng.choice(phrasings.DEFINITION_FOLLOW_UPS)), rng), other.say(_DEFINITION)]
        yield Dialogue(tuple(turns))


def definition_documents(rng: Random) -> Iterator[str]:
    """Endless lists of up to four definitions."""
    words = shuffled_forever(definitions(), rng)
    while True:
        yield " ".join(next(words).say(_DEFINITION) for _ in range(rng.randint(1, 4)))


def _country_question(country: Country, rng: Random) -> tuple[str, str]:
    """A question template, and the answer template that its wording calls for."""
    draw = rng.random()
    # "London is the capital of which country?" has one answer: the first with this capital.
    is_ambiguous = country != next(c for c in countries() if c.capital == country.capital)
    if draw < phrasings.SHARE_OF_CAPITAL_QUESTION:
        return phrasings.CAPITAL_QUESTION, phrasings.CAPITAL_ANSWER
    if draw < 0.76:
        return rng.choice(phrasings.CAPITAL_QUESTIONS), phrasings.CAPITAL_ANSWER
    if draw < 0.80:
        return rng.choice(phrasings.CAPITAL_QUESTIONS_BY_CITY), "{capital} is the capital of {country}."
    if draw < 0.84:
        return rng.choice(phrasings.CAPITAL_QUESTIONS_BRIEF), "{capital}."
    if draw < 0.93 and not is_ambiguous:
        return rng.choice(phrasings.COUNTRY_QUESTIONS), "{capital} is the capital of {country}."
    return rng.choice(phrasings.CONTINENT_QUESTIONS), "{country} is in {continent}."
