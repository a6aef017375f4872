"""The tasks of the demo model's card as a test: held-out questions and stories, with what counts as right."""

from dataclasses import dataclass

from llada_core.text.tokenizer import Message
from training.demo.sampling import stream
from training.demo.splits import make_splits
from training.demo.stories import REQUESTS, heroes, recognize, with_articles

STORIES = "stories"

# Tasks that a card has only of models that were taught to call functions.
_CALLS = ("calls of the calculator", "answers with its result")


@dataclass(frozen=True, slots=True)
class Question:
    """A conversation to answer.

    Attributes:
        expected: a part that the answer must have; None for a story, which is right if the grammar can tell it.
    """

    messages: tuple[Message, ...]
    expected: str | None

    def is_answered_by(self, text: str) -> bool:
        """Whether a text is right."""
        return recognize(text) is not None if self.expected is None else self.expected in text


def card_tasks(limit: int, num_stories: int) -> dict[str, list[Question]]:
    """Return the questions of each task.

    Args:
        limit: about how many of each task but stories.
    """
    tasks: dict[str, list[Question]] = {}
    splits = make_splits(0)
    for question in splits.questions:
        if question.task not in _CALLS:
            roles = ("user", "assistant")
            turns = [Message(roles[number % 2], turn) for number, turn in enumerate(question.turns)]
            tasks.setdefault(question.task, []).append(Question(tuple(turns), question.answer))
    # Every n-th question: the list is sorted, its head would be one phrasing.
    tasks = {task: questions[:: max(1, len(questions) // limit)] for task, questions in tasks.items()}
    rng = stream(0, "evaluation/stories")
    held_out = sorted(splits.unknown & set(heroes()))
    taught = [hero for hero in heroes() if hero not in held_out]
    asked = [rng.choice((taught, held_out)[number % 2]) for number in range(num_stories)]
    tasks[STORIES] = [
        Question((Message("user", with_articles(REQUESTS[0].format(hero=hero))),), None) for hero in asked
    ]
    return tasks
