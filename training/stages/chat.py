"""The part that stages of chats share: the special tokens of the chat format, and what it has a place for."""

from collections.abc import Sequence
from typing import ClassVar

from llada_core.errors import InvalidParameterError
from llada_core.text.special_tokens import END_HEADER_TOKEN, EOT_TOKEN, START_HEADER_TOKEN
from llada_core.text.tokenizer import Message, Tokenizer


class Chat:
    """A stage whose samples are chats."""

    __slots__ = ()

    required_tokens: ClassVar[Sequence[str]] = (START_HEADER_TOKEN, END_HEADER_TOKEN, EOT_TOKEN)

    def prompt(self, text: str) -> list[Message]:
        """A chat of one message by the user."""
        return [Message("user", text)]


def writes_thinking(tokenizer: Tokenizer) -> bool:
    """Return whether the chat format writes the thinking of an answer, and after the prompt for that answer."""
    if not tokenizer.has_template or tokenizer.thinking is None:
        return False
    question = Message("user", "x")
    try:
        prompt = tokenizer.encode_chat([question])
        said, thought = (
            tokenizer.encode_chat([question, Message("assistant", "x", thinking=text)], add_generation_prompt=False)
            for text in ("", "y")
        )
    except InvalidParameterError:  # a template that wants more of a conversation
        return False
    return thought != said and thought[: len(prompt)] == prompt
