"""Conversations, and where in one the reply begins."""

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from server.errors import bad_request
from server.schemas.base import Body, Text


class TextPart(Body):
    """A content part; of OpenAI's kinds only text."""

    type: Literal["text"]
    text: Text


class ChatMessage(Body):
    """One turn. A list of text parts is the text of all of them."""

    role: Literal["system", "user", "assistant"]
    content: Text | list[TextPart]

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatFields(Body):
    """Where in a conversation the reply begins (vLLM's fields)."""

    add_generation_prompt: bool = Field(default=True, description="open the assistant's turn after the messages")
    continue_final_message: bool = Field(
        default=False, description="leave the last message open and go on in it; wants add_generation_prompt false"
    )

    @model_validator(mode="after")
    def _the_reply_begins_at_one_place(self) -> "ChatFields":
        if self.continue_final_message and self.add_generation_prompt:
            raise bad_request(
                "continue_final_message is True; it must be false unless add_generation_prompt is false",
                "continue_final_message",
            )
        return self


class PromptOrMessages(ChatFields):
    """A prompt or a conversation: exactly one of the fields in `exclusive`."""

    exclusive: ClassVar[tuple[str, ...]] = ("prompt", "messages")

    messages: list[ChatMessage] | None = Field(None, min_length=1, description="a conversation")

    @model_validator(mode="after")
    def _exactly_one(self) -> "PromptOrMessages":
        given = [name for name in self.exclusive if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) if given else "none"
            raise bad_request(f"{found} given of {', '.join(self.exclusive)}; it must be exactly one", "prompt")
        return self
