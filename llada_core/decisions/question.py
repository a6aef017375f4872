"""Questions with a closed set of answers."""

from dataclasses import dataclass

from llada_core.errors import InvalidParameterError

# The most questions that are asked about one input at once.
MOST_QUESTIONS = 400


@dataclass(frozen=True, slots=True)
class Option:
    """A possible answer.

    Attributes:
        name: the answer itself; may not be empty.
        description: says when it is the right one; may be empty.
    """

    name: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class Question:
    """A question whose answer is exactly one of its options.

    A choice lists its values, a score its levels from the lowest to the highest, a predicate `yes` and `no`.

    Attributes:
        instructions: the question, or a statement that is true or not; may be empty.
        options: at least two, in their given order.
    """

    instructions: str
    options: tuple[Option, ...]

    def __post_init__(self) -> None:
        if len(self.options) < 2:
            raise InvalidParameterError(f"options has {len(self.options)} entries; it must have at least 2", "options")

    @property
    def num_characters(self) -> int:
        """The length of all its texts."""
        return len(self.instructions) + sum(len(option.name) + len(option.description) for option in self.options)


def predicate(statement: str, *, yes: str = "", no: str = "") -> Question:
    """Ask whether a statement is true. The first option is yes.

    Args:
        yes: says when it counts as true.
        no: says when it does not.
    """
    return Question(statement, (Option("yes", yes), Option("no", no)))
