"""The held-out questions, chosen before any training text is built, so that the model never sees them."""

from dataclasses import dataclass
from random import Random

from training.demo import phrasings
from training.demo.arithmetic import Pair
from training.demo.facts import countries, definitions
from training.demo.sampling import stream

NUM_HELD_OUT_SUMS = 300


@dataclass(frozen=True)
class HeldOutQuestion:
    """A question to test with; ``answer`` is the part of the reply that must be right."""

    task: str
    question: str
    answer: str


@dataclass(frozen=True)
class Splits:
    """The held-out pairs, smaller number first, and all held-out questions."""

    sums: frozenset[Pair]
    questions: tuple[HeldOutQuestion, ...]


def make_splits(seed: int) -> Splits:
    """Fix the held-out split first: builders get the pairs to avoid, so that no later change can leak them.

    Sums are held out as pairs, in both orders and in pretraining too. Capitals and definitions are held out as
    phrasings: every fact is taught, but never in these words.
    """
    rng = stream(seed, "splits")
    pairs = frozenset(rng.sample([(a, b) for a in range(100) for b in range(a, 100)], NUM_HELD_OUT_SUMS))
    return Splits(pairs, (*_capitals(), *_sums(pairs, rng), *_definitions()))


def _capitals() -> list[HeldOutQuestion]:
    return [
        HeldOutQuestion("capitals", country.say(template), country.capital)
        for template in phrasings.HELD_OUT_CAPITAL_QUESTIONS
        for country in countries()
    ]


def _sums(pairs: frozenset[Pair], rng: Random) -> list[HeldOutQuestion]:
    questions = dict.fromkeys(phrasings.SUM_QUESTIONS)
    return [HeldOutQuestion("sums", rng.choice(list(questions)).format(a=a, b=b), str(a + b)) for a, b in sorted(pairs)]


def _definitions() -> list[HeldOutQuestion]:
    return [
        HeldOutQuestion("definitions", definition.say(template), definition.gloss)
        for template in phrasings.HELD_OUT_DEFINITION_QUESTIONS
        for definition in definitions()
    ]
