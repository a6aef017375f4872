"""The held-out questions, chosen before any training text is built, so that the model never sees them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from llada_core.text.tool_prompt import tools_text
from training.demo import phrasings
from training.demo.arithmetic import DIFFERENCE, PRODUCT, SUM, Operation, Pair, digits
from training.demo.facts import Country, countries, definitions
from training.demo.sampling import stream
from training.demo.tools import CALCULATOR, tool_turns
from training.demo.unknown import UNKNOWN_ANSWER, untaught, word_question

NUM_HELD_OUT_EXERCISES = {"sums": 300, "differences": 200}
NUM_HELD_OUT_WORDS = 40
NUM_HELD_OUT_PLACES = 50
NUM_HELD_OUT_ABSTRACT = 10
NUM_HELD_OUT_FOLLOW_UPS = 100


@dataclass(frozen=True)
class HeldOutQuestion:
    """A conversation to test with, the user's turn last; ``answer`` is the part of the reply that must be right."""

    task: str
    turns: tuple[str, ...]
    answer: str
    system: str = ""


@dataclass(frozen=True)
class Splits:
    """What builders must avoid, and all questions to test with.

    Attributes:
        exercises: operations and pairs; a sum is held out in both orders.
        follow_ups: pairs of countries that are not asked for one after the other.
        unknown: words and places without an answer, which are not heroes of stories either.
        questions: all questions to test with. A task named "… (taught)" was taught whole.
    """

    exercises: frozenset[tuple[str, Pair]]
    follow_ups: frozenset[tuple[str, str]]
    unknown: frozenset[str]
    questions: tuple[HeldOutQuestion, ...]


def make_splits(seed: int) -> Splits:
    """Fix the held-out split first: builders get what to avoid, so that no later change can leak it.

    Sums and differences are held out as pairs, unknown words and places as words, in pretraining too. Capitals and
    definitions are held out as phrasings: every fact is taught, but never in these words. What has few cases, as sums
    of one-digit numbers, is taught whole and tested whole.
    """
    rng = stream(seed, "splits")
    sums = _pairs(SUM, lambda a, b: a <= b, rng)
    differences = _pairs(DIFFERENCE, lambda a, b: a >= b, rng)
    words, places = (
        rng.sample(untaught("thing"), NUM_HELD_OUT_WORDS),
        rng.sample(untaught("place"), NUM_HELD_OUT_PLACES),
    )
    words += rng.sample(untaught("abstract"), NUM_HELD_OUT_ABSTRACT)
    follow_ups = [tuple(rng.sample(countries(), 2)) for _ in range(NUM_HELD_OUT_FOLLOW_UPS)]
    return Splits(
        exercises=frozenset(
            {(SUM.name, order) for a, b in sums for order in ((a, b), (b, a))}
            | {(DIFFERENCE.name, pair) for pair in differences}
        ),
        follow_ups=frozenset((first.country, second.country) for first, second in follow_ups),
        unknown=frozenset((*words, *places)),
        questions=(
            *_taught_exercises("sums of one-digit numbers (taught)", SUM),
            *_taught_exercises("differences of one-digit numbers (taught)", DIFFERENCE),
            *_taught_exercises("products up to 10 * 10 (taught)", PRODUCT),
            *_exercises(SUM, sums, rng),
            *_exercises(DIFFERENCE, differences, rng),
            *_capitals(),
            *_definitions(),
            *_unknown(words, places, rng),
            *_follow_ups(follow_ups, rng),
            *_calculations(SUM, sums, rng),
            *_calculations(DIFFERENCE, differences, rng),
        ),
    )


def _pairs(operation: Operation, is_asked: Callable[[int, int], bool], rng: Random) -> list[Pair]:
    """Pairs to hold out, but those of one-digit numbers, which are taught whole."""
    pairs = [pair for pair in operation.pairs if is_asked(*pair)]
    return sorted(pair for pair in rng.sample(pairs, NUM_HELD_OUT_EXERCISES[operation.name]) if digits(pair) != "one")


def _exercises(operation: Operation, pairs: Sequence[Pair], rng: Random) -> list[HeldOutQuestion]:
    questions = list(dict.fromkeys(operation.questions))
    return [
        HeldOutQuestion(operation.name, (rng.choice(questions).format(a=a, b=b),), f"= {operation.result(a, b)}.")
        for a, b in pairs
    ]


def _taught_exercises(task: str, operation: Operation) -> list[HeldOutQuestion]:
    pairs = [
        (a, b)
        for a, b in operation.pairs
        if operation is PRODUCT or (digits((a, b)) == "one" and (operation is SUM or a >= b))
    ]
    return [
        HeldOutQuestion(task, (operation.questions[0].format(a=a, b=b),), f"= {operation.result(a, b)}.")
        for a, b in pairs
    ]


def _capitals() -> list[HeldOutQuestion]:
    return [
        HeldOutQuestion("capitals", (country.say(template),), country.capital)
        for template in phrasings.HELD_OUT_CAPITAL_QUESTIONS
        for country in countries()
    ]


def _definitions() -> list[HeldOutQuestion]:
    return [
        HeldOutQuestion("definitions", (definition.say(template),), definition.gloss)
        for template in phrasings.HELD_OUT_DEFINITION_QUESTIONS
        for definition in definitions()
    ]


def _unknown(words: Sequence[str], places: Sequence[str], rng: Random) -> list[HeldOutQuestion]:
    """Each word and place in a phrasing in which taught ones are asked for."""
    asked = [word_question(rng.choice(phrasings.DEFINITION_QUESTIONS), word) for word in words]
    asked += [phrasings.CAPITAL_QUESTION.format(country=place) for place in places]
    return [HeldOutQuestion("unknown words and places", (question,), UNKNOWN_ANSWER) for question in asked]


def _follow_ups(pairs: Sequence[tuple[Country, ...]], rng: Random) -> list[HeldOutQuestion]:
    return [
        HeldOutQuestion(
            "second questions",
            (
                first.say(phrasings.CAPITAL_QUESTION),
                first.say(phrasings.CAPITAL_ANSWER),
                second.say(rng.choice(phrasings.FOLLOW_UPS)),
            ),
            second.say(phrasings.CAPITAL_ANSWER),
        )
        for first, second in pairs
    ]


def _calculations(operation: Operation, pairs: Sequence[Pair], rng: Random) -> Iterator[HeldOutQuestion]:
    """The call of the calculator for each held-out exercise, and the answer once its result is there."""
    system = tools_text([CALCULATOR])
    for pair in pairs:
        question, call, result, answer = tool_turns(operation, pair, rng.choice(operation.questions))
        yield HeldOutQuestion("calls of the calculator", (question,), call, system)
        yield HeldOutQuestion("answers with its result", (question, call, result), answer, system)
