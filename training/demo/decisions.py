"""Questions with lettered options about what the recipe teaches: true or not, which of several, how much.

The options of a question stand in a random order, so that no label and no place is more often right; of a statement
"yes" mostly stands first, since from labels that say nothing by themselves a small model learns nothing. Held out
are phrasings of true statements and of questions with a choice, and a tenth of all false statements.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from random import Random
from string import ascii_uppercase
from typing import Any, TypeVar
from zlib import crc32

from llada_core.decisions.question import Option, Question, predicate
from llada_core.decisions.rendering import decision_turns
from llada_core.text.tokenizer import Message
from training.demo import phrasings
from training.demo.arithmetic import DIFFERENCE, SUM, Pair
from training.demo.facts import Country, Definition, countries, definitions
from training.demo.sampling import Dialogue, shuffled_forever
from training.demo.stories import begin, heroes, tell, with_articles

Fact = TypeVar("Fact", Country, Definition)

_SHARES = {"capital": 0.3, "continent": 0.05, "word": 0.2, "exercise": 0.1, "hero": 0.1, "choice": 0.18, "score": 0.07}
_KEPT_ASIDE_ONE_IN = 10
_SHARE_OF_YES_FIRST = 0.7
_SIZES = (Option("small", "below 10"), Option("medium", "10 to 99"), Option("large", "100 or more"))
_LENGTHS = (Option("one word"), Option("one sentence"), Option("several sentences"))


@dataclass(frozen=True)
class Decision:
    """A question about an input.

    Attributes:
        kind: `predicate`, `choice` or `score`.
        answer: the index of the right option.
    """

    kind: str
    text: str
    question: Question
    answer: int

    def dialogue(self, order: Sequence[int]) -> Dialogue:
        """The question with its options in this order, answered by a label."""
        conversation = [Message("user", self.text)] if self.text else []
        (turn,) = decision_turns(conversation, self.question, tuple(order), ascii_uppercase)
        return Dialogue((turn.content, ascii_uppercase[list(order).index(self.answer)]))

    def row(self) -> dict[str, Any]:
        """The row that `llada-train calibrate` and `llada-train eval --decisions` read."""
        question: dict[str, Any] = {"type": self.kind, "instructions": self.question.instructions}
        answer: bool | str = self.question.options[self.answer].name
        if self.kind == "predicate":
            answer = self.answer == 0
        else:
            field, name = {"choice": ("choices", "value"), "score": ("levels", "label")}[self.kind]
            question[field] = [
                {name: option.name, "description": option.description} if option.description else {name: option.name}
                for option in self.question.options
            ]
        return {"input": self.text, "question": question, "answer": answer}


def decision_dialogues(
    exercises: frozenset[tuple[str, Pair]], unknown: frozenset[str], rng: Random
) -> Iterator[Dialogue]:
    """Endless questions, each in a random order of its options.

    Args:
        exercises: held-out ones, which never occur.
        unknown: words and places that no story is about.
    """
    lands, words = shuffled_forever(countries(), rng), shuffled_forever(definitions(), rng)
    kinds: dict[str, Callable[[], Decision]] = {
        "capital": lambda: _about_capital(next(lands), rng),
        "continent": lambda: _about_continent(next(lands), rng),
        "word": lambda: _about_word(next(words), rng),
        "exercise": lambda: _about_exercise(exercises, rng),
        "hero": lambda: _about_hero(unknown, rng),
        "choice": lambda: _capital_of(next(lands), rng) if rng.random() < 0.6 else _meaning_of(next(words), rng),
        "score": lambda: _size(rng) if rng.random() < 0.5 else _length(unknown, rng),
    }
    while True:
        decision = kinds[rng.choices(list(_SHARES), list(_SHARES.values()))[0]]()
        order = list(range(len(decision.question.options)))
        if decision.kind != "predicate" or rng.random() >= _SHARE_OF_YES_FIRST:
            rng.shuffle(order)
        yield decision.dialogue(order)


def held_out_decisions(rng: Random) -> Iterator[Decision]:
    """Questions about taught facts that no training row asks.

    For every country and every word: a true statement in a phrasing that is never trained, a false one that never
    occurs, and a choice in a phrasing that is never trained.
    """
    for country in countries():
        yield _held_out_truth(country.say(rng.choice(phrasings.HELD_OUT_CAPITAL_STATEMENTS)), is_true=True)
        wrong = rng.choice([c for c in countries() if is_kept_aside(country, c)])
        yield _held_out_truth(_mixed(country, wrong).say(rng.choice(phrasings.CAPITAL_STATEMENTS[:5])), is_true=False)
        yield _capital_of(country, rng, questions=phrasings.HELD_OUT_CAPITAL_QUESTIONS)
    for word in definitions():
        yield _held_out_truth(word.say(rng.choice(phrasings.HELD_OUT_DEFINITION_STATEMENTS)), is_true=True)
        other = rng.choice([d for d in definitions() if is_kept_aside(word, d)])
        statement = replace(word, gloss=other.gloss).say(rng.choice(phrasings.DEFINITION_STATEMENTS))
        yield _held_out_truth(statement, is_true=False)
        yield _meaning_of(word, rng, questions=phrasings.HELD_OUT_DEFINITION_QUESTIONS)


def is_kept_aside(subject: Country | Definition, other: Country | Definition) -> bool:
    """Whether the false statement that gives the subject what belongs to the other is held out."""
    return subject != other and crc32(f"{subject}/{other}".encode()) % _KEPT_ASIDE_ONE_IN == 0


def _held_out_truth(statement: str, *, is_true: bool) -> Decision:
    return Decision("predicate", statement, predicate(phrasings.TRUTH_QUESTIONS[0]), int(not is_true))


def _truth(statement: str, rng: Random, *, is_true: bool) -> Decision:
    """Ask whether a statement is true: as an input with a question about it or, now and then, as the question."""
    if rng.random() < 0.2:
        return Decision("predicate", "", predicate(statement), int(not is_true))
    return Decision("predicate", statement, predicate(rng.choice(phrasings.TRUTH_QUESTIONS)), int(not is_true))


def _about_capital(country: Country, rng: Random) -> Decision:
    is_true = rng.random() < 0.5
    named = country if is_true else _mixed(country, _another(country, countries(), rng))
    return _truth(named.say(rng.choice(phrasings.CAPITAL_STATEMENTS_ALONE)), rng, is_true=is_true)


def _about_continent(country: Country, rng: Random) -> Decision:
    is_true = rng.random() < 0.5
    others = sorted({c.continent for c in countries()} - {country.continent})
    named = country if is_true else replace(country, continent=rng.choice(others))
    return _truth(named.say(rng.choice(phrasings.CONTINENT_STATEMENTS)), rng, is_true=is_true)


def _about_word(word: Definition, rng: Random) -> Decision:
    is_true = rng.random() < 0.5
    named = word if is_true else replace(word, gloss=_another(word, definitions(), rng).gloss)
    return _truth(named.say(rng.choice(phrasings.DEFINITION_STATEMENTS)), rng, is_true=is_true)


def _about_exercise(held_out: frozenset[tuple[str, Pair]], rng: Random) -> Decision:
    operation = rng.choice((SUM, DIFFERENCE))
    # Half of them with the numbers below ten, which people try first.
    pairs = [pair for pair in operation.pairs if max(pair) < 10] if rng.random() < 0.5 else operation.pairs
    while (operation.name, pair := rng.choice(pairs)) in held_out:
        pass
    solved, is_true = operation.solve(*pair), rng.random() < 0.5
    if not is_true:
        left, right = solved.split(" = ")
        solved = f"{left} = {int(right) + rng.choice((-10, -2, -1, 1, 2, 10))}"
    return _truth(solved + rng.choice((".", "")), rng, is_true=is_true)


def _about_hero(unknown: frozenset[str], rng: Random) -> Decision:
    """Whether a text is about a word: to be read from the text, and not known."""
    hero, other = rng.sample([hero for hero in heroes() if hero not in unknown], 2)
    is_true = rng.random() < 0.5
    question = with_articles(rng.choice(phrasings.HERO_STATEMENTS).format(hero=hero if is_true else other))
    return Decision("predicate", begin(hero, rng), predicate(question), int(not is_true))


def _capital_of(
    country: Country,
    rng: Random,
    *,
    questions: Sequence[str] = (phrasings.CAPITAL_QUESTION, *phrasings.CAPITAL_QUESTIONS),
) -> Decision:
    others = [c.capital for c in countries() if c.capital != country.capital]
    return _choice(country.say(rng.choice(questions)), country.capital, rng.sample(others, rng.randint(1, 4)), rng)


def _meaning_of(
    word: Definition, rng: Random, *, questions: Sequence[str] = phrasings.DEFINITION_QUESTIONS
) -> Decision:
    others = [d.gloss for d in definitions() if d.word != word.word]
    return _choice(word.say(rng.choice(questions)), word.gloss, rng.sample(others, rng.randint(1, 2)), rng)


def _choice(question: str, right: str, wrong: Sequence[str], rng: Random) -> Decision:
    options = rng.sample((right, *wrong), 1 + len(wrong))
    return Decision("choice", "", Question(question, tuple(map(Option, options))), options.index(right))


def _size(rng: Random) -> Decision:
    level = rng.randrange(3)
    number = rng.randint(*((0, 9), (10, 99), (100, 9999))[level])
    return Decision("score", str(number), Question(rng.choice(phrasings.SIZE_QUESTIONS), _SIZES), level)


def _length(unknown: frozenset[str], rng: Random) -> Decision:
    level = rng.randrange(3)
    hero = rng.choice([hero for hero in heroes() if hero not in unknown])
    # A whole story would fill most of a short context.
    sentences = tell(rng, hero=hero).text.split(". ")[:3]
    text = (hero, begin(hero, rng), ". ".join(sentences).rstrip(".") + ".")[level]
    return Decision("score", text, Question(rng.choice(phrasings.LENGTH_QUESTIONS), _LENGTHS), level)


def _mixed(country: Country, other: Country) -> Country:
    """The country with the capital of another."""
    return replace(country, capital=other.capital)


def _another(subject: Fact, of: Sequence[Fact], rng: Random) -> Fact:
    """Another one, such that the false statement about the subject is not held out, not for its like either.

    London is the capital of England and of the United Kingdom.
    """
    while True:
        other = rng.choice(of)
        alike = [one for one in of if one.answer == other.answer]
        if other.answer != subject.answer and not any(is_kept_aside(subject, one) for one in alike):
            return other
