"""Sums, differences and products of small numbers, except the held-out pairs.

Each digit count of an operation has a share of its own: drawn evenly, the pairs of one-digit numbers, which everybody
tries first, would be one in a hundred.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random

from training.demo import phrasings
from training.demo.sampling import Dialogue, shuffled_forever

Pair = tuple[int, int]


@dataclass(frozen=True)
class Operation:
    """An operation on two numbers: its sign in answers, how it is asked for, and what of it is taught."""

    name: str
    sign: str
    result: Callable[[int, int], int]
    questions: tuple[str, ...]
    pairs: tuple[Pair, ...]

    def solve(self, a: int, b: int) -> str:
        """The solved equation, "3 + 4 = 7"."""
        return f"{a} {self.sign} {b} = {self.result(a, b)}"


_BELOW_100 = [(a, b) for a in range(100) for b in range(100)]
SUM = Operation("sums", "+", lambda a, b: a + b, phrasings.SUM_QUESTIONS, tuple(_BELOW_100))
DIFFERENCE = Operation(
    "differences",
    "-",
    lambda a, b: a - b,
    phrasings.DIFFERENCE_QUESTIONS,
    tuple((a, b) for a, b in _BELOW_100 if a >= b or b < 10),
)
PRODUCT = Operation(
    "products",
    "*",
    lambda a, b: a * b,
    phrasings.PRODUCT_QUESTIONS,
    tuple((a, b) for a in range(11) for b in range(11)),
)
OPERATIONS = (SUM, DIFFERENCE, PRODUCT)

_SHARES = {"sums": 0.42, "differences": 0.38, "products": 0.2}
_SHARE_OF_HARD_PAIRS = 0.4
_SHARES_OF_DIGITS = {"one": 0.3, "mixed": 0.25, "two": 0.45}


def digits(pair: Pair) -> str:
    """Whether both numbers have one digit, both have two, or it is mixed."""
    return {0: "one", 1: "mixed", 2: "two"}[sum(number >= 10 for number in pair)]


def arithmetic_dialogues(held_out: frozenset[tuple[str, Pair]], rng: Random) -> Iterator[Dialogue]:
    """Endless exercises, now and then with a second one."""
    exercises = _exercises(held_out, rng)
    for operation, pair in exercises:
        question = _spaced(rng.choice(operation.questions).format(a=pair[0], b=pair[1]), rng)
        turns = [question, operation.solve(*pair) + "."]
        if rng.random() < 0.04:
            other, (a, b) = next(exercises)
            turns += [f"And {a} {other.sign} {b}?", other.solve(a, b) + "."]
        yield Dialogue(tuple(turns))


def arithmetic_documents(held_out: frozenset[tuple[str, Pair]], rng: Random) -> Iterator[str]:
    """Endless short lists of solved exercises, one per line."""
    exercises = _exercises(held_out, rng)
    while True:
        drawn = (next(exercises) for _ in range(rng.randint(3, 6)))
        yield "\n".join(operation.solve(*pair) for operation, pair in drawn)


def _exercises(held_out: frozenset[tuple[str, Pair]], rng: Random) -> Iterator[tuple[Operation, Pair]]:
    """Endless pairs; those of one operation and digit count come equally often, but hard ones more.

    Hard is a result whose own number of digits is a near thing, a sum close to a hundred or a
    difference close to ten: the first digit is mostly committed before the number of digits is settled.
    """
    decks = {
        (operation.name, count): shuffled_forever(
            [pair for pair in operation.pairs if digits(pair) == count and (operation.name, pair) not in held_out], rng
        )
        for operation in OPERATIONS
        for count in _SHARES_OF_DIGITS
    }
    hard = {
        (operation.name, count): shuffled_forever(
            [
                pair
                for pair in operation.pairs
                if digits(pair) == count and operation.result(*pair) in near and (operation.name, pair) not in held_out
            ],
            rng,
        )
        for operation, near in ((SUM, range(80, 110)), (DIFFERENCE, range(20)))
        for count in ("mixed", "two")
    }
    while True:
        operation = rng.choices(OPERATIONS, [_SHARES[operation.name] for operation in OPERATIONS])[0]
        count = rng.choices(list(_SHARES_OF_DIGITS), list(_SHARES_OF_DIGITS.values()))[0]
        is_hard = (operation.name, count) in hard and rng.random() < _SHARE_OF_HARD_PAIRS
        yield operation, next((hard if is_hard else decks)[operation.name, count])


def _spaced(question: str, rng: Random) -> str:
    """The question, sometimes without the spaces around its sign."""
    if rng.random() < 0.15:
        for operation in OPERATIONS:
            question = question.replace(f" {operation.sign} ", operation.sign)
        return question.replace(" =", "=")
    return question
