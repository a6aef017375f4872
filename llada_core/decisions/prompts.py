"""Questions as token ids, ready to be asked in any order of their options."""

from collections.abc import Sequence
from dataclasses import dataclass

from llada_core.decisions.labels import Labels
from llada_core.decisions.orders import Order
from llada_core.decisions.question import Question
from llada_core.decisions.rendering import CUE, instructions_text, label_text, opened, option_text
from llada_core.text.tokenizer import Message, Tokenizer


@dataclass(frozen=True, slots=True)
class EncodedQuestion:
    """A question behind its input, in pieces.

    Attributes:
        opening: everything before the question, shared by all that are asked about the same input.
        instruction_ids: the question.
        label_ids: how the line of each place begins; as many as there are options, or more.
        option_ids: how the line of each option goes on.
        after: everything between the options and the answer.
    """

    opening: Sequence[int]
    instruction_ids: Sequence[int]
    label_ids: Sequence[Sequence[int]]
    option_ids: Sequence[Sequence[int]]
    after: Sequence[int]

    @property
    def num_options(self) -> int:
        return len(self.option_ids)

    @property
    def length(self) -> int:
        """The number of tokens before the answer, the same in every order."""
        pieces = (self.opening, self.instruction_ids, self.after, *self.option_ids, *self.label_ids[: self.num_options])
        return sum(map(len, pieces))

    def ids(self, order: Order) -> list[int]:
        """Return the tokens before the answer, with the options in this order."""
        lines = (
            token_id
            for label, index in zip(self.label_ids, order, strict=False)
            for token_id in (*label, *self.option_ids[index])
        )
        return [*self.opening, *self.instruction_ids, *lines, *self.after]


def encode_questions(
    tokenizer: Tokenizer, conversation: Sequence[Message], questions: Sequence[Question], labels: Labels
) -> list[EncodedQuestion]:
    """Encode questions about a conversation. Each text is encoded once, however many questions and orders there are.

    The pieces are whole lines, or half a line up to a space. A tokenizer that never joins a line with the next encodes
    them as it encodes `decision_turns`.

    Args:
        questions: at least one, with no more options than there are labels (`Labels.require`).

    Raises:
        InvalidParameterError: the vocabulary lacks the chat format's tokens, or a template refuses the conversation.
    """
    most = max(len(question.options) for question in questions)
    assert most <= len(labels)
    *earlier, last = opened(conversation)
    chat = [*earlier, Message("user", "")]
    opening = tokenizer.encode_chat(chat, continue_final_message=True)
    closing = tokenizer.encode_chat(chat)[len(opening) :]
    texts = [last.content, CUE, *map(label_text, labels.texts[:most])]
    texts += [instructions_text(question) for question in questions]
    texts += [option_text(option) for question in questions for option in question.options]
    encoded = iter(tokenizer.encode_batch(texts))
    opening += next(encoded)
    closing = [*next(encoded), *closing]
    label_ids = [next(encoded) for _ in range(most)]
    instructions = [next(encoded) for _ in questions]
    return [
        EncodedQuestion(opening, ids, label_ids, [next(encoded) for _ in question.options], closing)
        for ids, question in zip(instructions, questions, strict=True)
    ]
