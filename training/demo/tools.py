"""A tool that the model may call: a calculator, for exercises of any size.

The model copies the exercise into the call and the result into its answer; what it computes by itself stays below 100.
"""

from collections.abc import Iterator
from random import Random

from llada_core.text.tool_prompt import Tool, ToolCall, calls_text, result_text, tools_text
from training.demo.arithmetic import OPERATIONS, Operation, Pair
from training.demo.facts import countries
from training.demo.phrasings import CAPITAL_ANSWER, CAPITAL_QUESTION
from training.demo.sampling import Dialogue

CALCULATOR = Tool(
    "calculator",
    "Evaluate an arithmetic expression.",
    {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]},
)
_MOST = 10_000


def tool_dialogues(held_out: frozenset[tuple[str, Pair]], rng: Random) -> Iterator[Dialogue]:
    """Endless exercises that the calculator solves; now and then a question that needs none.

    Args:
        held_out: exercises that never occur.
    """
    system = tools_text([CALCULATOR])
    while True:
        if rng.random() < 0.1:
            country = rng.choice(countries())
            yield Dialogue((country.say(CAPITAL_QUESTION), country.say(CAPITAL_ANSWER)), system)
            continue
        operation, pair = rng.choice(OPERATIONS), (_number(rng), _number(rng))
        if (operation.name, pair) in held_out:
            continue
        yield Dialogue(tool_turns(operation, pair, rng.choice(operation.questions)), system)


def tool_turns(operation: Operation, pair: Pair, question: str) -> tuple[str, ...]:
    """The question, the call, its result and the answer."""
    a, b = pair
    call = ToolCall(CALCULATOR.name, {"expression": f"{a} {operation.sign} {b}"})
    result = str(operation.result(a, b))
    return question.format(a=a, b=b), calls_text([call]), result_text(result), operation.solve(a, b) + "."


def _number(rng: Random) -> int:
    """A number of one to four digits, each equally often."""
    return rng.randrange(rng.choice((10, 100, 1000, _MOST)))
