"""Conversations, and the position at which a reply begins."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, Tag, model_validator

from llada_core.text.tokenizer import Message
from server.http.api_error import bad_request, shortened
from server.schemas.base import Body, List, NonEmptyList, Text, kind
from server.schemas.tools import CallInHistory


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
        "refusal": (),
    }

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = Field(default=None, description="may be absent beside tool_calls")
    name: Text | None = Field(
        default=None, description="the participant; without effect: the chat format has no place for it"
    )
    parsed: Any = Field(default=None, description="openai's client adds it to an answer; has no effect")
    reasoning_content: Text | None = Field(
        default=None, description="the assistant's thinking before the content; empty on models without thinking"
    )
    reasoning: Text | None = Field(default=None, description="vLLM's newer name for reasoning_content")
    tool_calls: List[CallInHistory] = Field(default=[], description="the assistant's calls")
    tool_call_id: Text | None = Field(default=None, description="the call whose result a turn of a tool is")

    @model_validator(mode="after")
    def _each_role_has_its_own_fields(self) -> "ChatMessage":
        if self.tool_calls and self.role != "assistant":
            raise ValueError("have no tool_calls unless its role is assistant")
        if len({call.id for call in self.tool_calls}) < len(self.tool_calls):
            raise ValueError("have tool_calls of different ids")
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise ValueError("have a tool_call_id if, and only if, its role is tool")
        if self.thinking and self.role != "assistant":
            raise ValueError(f"have no {self.thinking_field} unless its role is assistant")
        if self.reasoning and self.reasoning_content and self.reasoning != self.reasoning_content:
            raise ValueError("have the same reasoning and reasoning_content, or only one of them")
        if self.content is None and not self.tool_calls and not self._is_only_thinking:
            raise ValueError("have content, or tool_calls")
        return self

    @property
    def _is_only_thinking(self) -> bool:
        """Whether it is an answer that ended within its thinking, perhaps before the first word of it."""
        return self.role == "assistant" and not (self.reasoning_content is None and self.reasoning is None)

    @property
    def thinking(self) -> str:
        """The assistant's thinking; empty if the turn has none apart from its content."""
        return self.reasoning_content or self.reasoning or ""

    @property
    def thinking_field(self) -> str:
        """The field that holds the thinking."""
        return "reasoning_content" if self.reasoning_content else "reasoning"

    @property
    def text(self) -> str:
        if self.content is None or isinstance(self.content, str):
            return self.content or ""
        return "".join(part.text for part in self.content)

    def as_turn(self) -> Message:
        """The turn for the chat template."""
        return Message(
            "system" if self.role == "developer" else self.role,
            self.text,
            tuple(call.as_call() for call in self.tool_calls),
            self.tool_call_id or "",
            self.thinking.strip("\n"),
        )


def turns_of(messages: Sequence[ChatMessage]) -> list[Message]:
    """The conversation for the chat template; results follow their calls in the calls' order.

    Raises:
        APIError: a result whose call is not in the turn of the assistant before.
    """
    turns: list[Message] = []
    results: dict[str, Message | None] = {}
    for index, message in enumerate(messages):
        turn = message.as_turn()
        if turn.role == "tool":
            if turn.call_id not in results or results[turn.call_id] is not None:
                raise bad_request(
                    f"messages.{index}.tool_call_id is {shortened(turn.call_id)}; it must be the id of a call of the "
                    "assistant's turn before, each answered once",
                    "messages",
                )
            results[turn.call_id] = turn
            continue
        turns += [result for result in results.values() if result is not None]
        turns.append(turn)
        results = dict.fromkeys((call.id for call in turn.tool_calls), None)
    return turns + [result for result in results.values() if result is not None]


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
