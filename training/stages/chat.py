"""The part that stages of chats share: the special tokens of the chat format, and a prompt in it."""

from collections.abc import Sequence
from typing import ClassVar

from llada_core.text.special_tokens import END_HEADER_TOKEN, EOT_TOKEN, START_HEADER_TOKEN
from llada_core.text.tokenizer import Message


class Chat:
    """A stage whose samples are chats."""

    __slots__ = ()

    required_tokens: ClassVar[Sequence[str]] = (START_HEADER_TOKEN, END_HEADER_TOKEN, EOT_TOKEN)

    def prompt(self, text: str) -> list[Message]:
        """A chat of one message by the user."""
        return [Message("user", text)]
