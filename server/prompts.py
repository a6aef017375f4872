"""Turns text into token ids: prompts, conversations, segments of a canvas."""

import asyncio
from dataclasses import dataclass

from llada_core.errors import InvalidParameterError
from llada_core.text.tokenizer import Tokenizer
from server.schemas.conversation import ChatFields, ChatMessage


@dataclass(frozen=True, slots=True)
class Prompts:
    """Encodes what requests send as text; token ids pass through unchanged.

    Encoding runs in worker threads: a text of megabytes takes seconds, and the event loop must not wait for it.
    """

    tokenizer: Tokenizer | None

    async def encode_prompt(self, prompt: str | list[int]) -> list[int]:
        """The ids of a prompt sent as text or as ids."""
        if isinstance(prompt, list):
            return prompt
        return await self.encode_text(prompt)

    async def encode_text(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The ids of a prompt sent as text."""
        encode = self.required_tokenizer("prompt").encode
        return await asyncio.to_thread(encode, text, add_special_tokens=add_special_tokens)

    async def encode_messages(self, messages: list[ChatMessage], fields: ChatFields) -> list[int]:
        """The ids of a conversation in the chat template."""
        return await asyncio.to_thread(
            self.required_tokenizer("messages").encode_chat,
            [message.as_turn() for message in messages],
            add_generation_prompt=fields.add_generation_prompt,
            continue_final_message=fields.continue_final_message,
        )

    async def encode_segment(self, segment: str | list[int], field_name: str) -> list[int]:
        """The ids of a piece of a canvas: no token is added, and no text is read as a special token."""
        if isinstance(segment, list):
            return segment
        return await asyncio.to_thread(self.required_tokenizer(field_name).encode_plain, segment)

    def text_of(self, prompt: str | list[int]) -> str:
        """The prompt as display text; empty if it was sent as ids and there is no tokenizer."""
        if isinstance(prompt, str):
            return prompt
        return self.tokenizer.decode(prompt) if self.tokenizer else ""

    def required_tokenizer(self, field_name: str) -> Tokenizer:
        """The tokenizer, which the text in `field_name` needs.

        Raises:
            InvalidParameterError: the model's folder has no tokenizer.
        """
        if self.tokenizer is None:
            raise InvalidParameterError(
                f"{field_name} is text, and this model's folder has no tokenizer; send `prompt` as token ids",
                field_name,
            )
        return self.tokenizer
