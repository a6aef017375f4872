"""Questions as chat turns with lettered options, in the form of MMLU (arXiv:2009.03300).

The user's turn is the input, an empty line, the question and its options, one to a line. The assistant's turn is the
label of one option and nothing else:

    The soup was cold and the waiter was rude.

    The guest is satisfied.
    A. yes
    B. no
    Answer:
"""

from collections.abc import Sequence

from llada_core.decisions.orders import Order
from llada_core.decisions.question import Option, Question
from llada_core.text.tokenizer import Message


def decision_turns(
    conversation: Sequence[Message], question: Question, order: Order, labels: Sequence[str]
) -> list[Message]:
    """Return the conversation with the question at its end. The assistant's next turn is a single label.

    The question joins the last turn if that is the user's, and is a turn of its own otherwise.

    Args:
        conversation: what the question is about; a text is one turn of the user.
        order: the option listed at each place.
        labels: the label of each place; at least as many as there are options.
    """
    text = question_text(question, order, labels)
    if conversation and conversation[-1].role == "user":
        *earlier, last = conversation
        return [*earlier, Message("user", "\n\n".join(filter(None, (last.content.strip(), text))))]
    return [*conversation, Message("user", text)]


def question_text(question: Question, order: Order, labels: Sequence[str]) -> str:
    """Return the question and its labelled options."""
    options = (f"{label}. {_option_text(question.options[index])}" for label, index in zip(labels, order, strict=False))
    return "\n".join(filter(None, (question.instructions.strip(), *options, "Answer:")))


def _option_text(option: Option) -> str:
    return ": ".join(filter(None, (option.name.strip(), option.description.strip())))
