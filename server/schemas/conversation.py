"""Conversations, and the position at which a reply begins."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, Tag, model_validator

from llada_core.text.tokenizer import Message
from server.http.api_error import bad_request
from server.schemas.base import Body, List, NonEmptyList, Text, kind


class TextPart(Body):
    """A part of a message's content; only OpenAI's text parts are supported."""

    type: Literal["text"]
    text: Text


Content = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[List[TextPart], Tag("<parts>")],
    kind("<text>", "<parts>"),
]


class ChatMessage(Body):
    """One turn. Text parts are joined; `developer` is OpenAI's newer name for `system`."""

    # Fields of an earlier answer that a client sends back as a turn.
    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "annotations": ([],),
        "audio": (),
        "function_call": (),
        "reasoning": ("",),
        "reasoning_content": ("",),
        "refusal": (),
        "tool_calls": ([],),
    }

    role: Literal["system", "developer", "user", "assistant"]
    content: Content
    name: Text | None = Field(
        default=None, description="the participant; without effect: the chat format has no place for it"
    )

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)

    def as_turn(self) -> Message:
        """The turn for the chat template."""
        return Message("system" if self.role == "developer" else self.role, self.text)


class ChatFields(Body):
    """The position in a conversation at which the reply begins (vLLM's fields)."""

    add_generation_prompt: bool = Field(default=True, description="open the assistant's turn after the messages")
    continue_final_message: bool = Field(
        default=False, description="leave the last message open and continue it; needs add_generation_prompt false"
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

    messages: NonEmptyList[ChatMessage] | None = Field(None, description="a conversation")

    @model_validator(mode="after")
    def _exactly_one(self) -> "PromptOrMessages":
        present = [name for name in self.exclusive if getattr(self, name) is not None]
        if len(present) != 1:
            names = " and ".join(present) if present else "none of them"
            field = present[1] if present else self.exclusive[0]
            raise bad_request(f"{', '.join(self.exclusive)}: {names} given; exactly one must be", field)
        return self

    @model_validator(mode="after")
    def _a_reply_begins_in_a_conversation(self) -> "PromptOrMessages":
        for name in sorted(ChatFields.model_fields.keys() & self.model_fields_set):
            if self.messages is None:
                raise bad_request(f"{name} is {getattr(self, name)}; it must be absent without messages", name)
        return self
