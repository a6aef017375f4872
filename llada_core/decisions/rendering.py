"""Questions as chat turns with lettered options, in the form of MMLU (arXiv:2009.03300).

The user's turn is the input, an empty line, the question and its options, one to a line. The assistant's turn is the
label of one option and nothing else:

    The soup was cold and the waiter was rude.

    The guest is satisfied.
    A. yes
    B. no
    Answer:

The functions for the parts each return whole lines, or half a line, so that a tokenizer can encode them one by one.
"""

from collections.abc import Sequence

from llada_core.decisions.orders import Order
from llada_core.decisions.question import Option, Question
from llada_core.text.tokenizer import Message

CUE = "Answer:"


def decision_turns(
    conversation: Sequence[Message], question: Question, order: Order, labels: Sequence[str]
) -> list[Message]:
    """Return the conversation with the question at its end. The assistant's next turn is a single label.

    Args:
        conversation: what the question is about; a text is one turn of the user.
        order: the option listed at each place.
        labels: the label of each place; at least as many as there are options.
    """
    *earlier, last = opened(conversation)
    options = (
        label_text(label) + option_text(question.options[index]) for label, index in zip(labels, order, strict=False)
    )
    return [*earlier, Message("user", "".join((last.content, instructions_text(question), *options, CUE)))]


def opened(conversation: Sequence[Message]) -> list[Message]:
    """Return the conversation, its last turn a user's that the question continues.

    The question joins the last turn if that is the user's, and is a turn of its own otherwise.
    """
    if not conversation or conversation[-1].role != "user":
        return [*conversation, Message("user", "")]
    *earlier, last = conversation
    text = last.content.strip()
    return [*earlier, Message("user", f"{text}\n\n" if text else "")]


def instructions_text(question: Question) -> str:
    """Return the line of the instructions; empty if there are none."""
    text = question.instructions.strip()
    return f"{text}\n" if text else ""


def label_text(label: str) -> str:
    """Return how the line of an option begins."""
    return f"{label}."


def option_text(option: Option) -> str:
    """Return how the line of an option goes on."""
    description = option.description.strip()
    return f" {option.name.strip()}{f': {description}' if description else ''}\n"
