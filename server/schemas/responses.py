"""The body of OpenAI's responses endpoint: text in, text out, nothing stored."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, Tag, model_validator

from llada_core.sampling.params import Preset
from server.http.api_error import bad_request
from server.schemas.base import Body, List, NonEmptyList, NonEmptyText, Text, kind, typed
from server.schemas.conversation import ChatMessage
from server.schemas.diffusion import NEUTRAL, PRESET_OF_EFFORT, DiffusionFields, Effort
from server.schemas.structured import AnswerForm, FormatType, StructuredFields, format_form


class ResponseText(Body):
    """A text part of an input, or of an earlier answer that is sent back; other parts are not supported."""

    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {"annotations": ([],)}

    type: Literal["input_text", "output_text"]
    text: Text
    logprobs: list[Any] | None = Field(None, description="present in an answer that is sent back; has no effect")


class ResponseMessage(Body):
    """A turn of the responses endpoint's input."""

    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {"phase": ("commentary", "final_answer")}

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Annotated[
        Annotated[Text, Tag("<text>")] | Annotated[List[ResponseText], Tag("<parts>")], kind("<text>", "<parts>")
    ]
    id: str | None = Field(None, description="present in an answer that is sent back; has no effect")
    status: str | None = Field(None, description="present in an answer that is sent back; has no effect")

    def as_chat(self, thinking: str = "") -> ChatMessage:
        """The same turn for the chat template.

        Args:
            thinking: that of the assistant before it.
        """
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return ChatMessage(role=self.role, content=text, reasoning_content=thinking)


class ReasoningText(Body):
    """The text of an earlier answer's thinking."""

    type: Literal["reasoning_text"]
    text: Text


class ReasoningItem(Body):
    """The thinking of an earlier answer, which belongs to the assistant's turn after it."""

    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {"encrypted_content": (), "summary": ([],)}

    type: Literal["reasoning"]
    content: List[ReasoningText] = Field([], description="the thinking")
    id: str | None = Field(None, description="present in an answer that is sent back; has no effect")
    status: str | None = Field(None, description="present in an answer that is sent back; has no effect")

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.content)


InputItem = Annotated[
    Annotated[ResponseMessage, Tag("<message>")] | Annotated[ReasoningItem, Tag("<reasoning>")],
    typed("message", "reasoning", default="message"),
]


class ResponseReasoning(Body):
    """OpenAI's `reasoning`: only the effort has an effect, as `reasoning_effort`."""

    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {"generate_summary": (), "summary": ()}

    effort: Effort | None = Field(None, description="chooses a preset, as reasoning_effort does")


class TextFormat(Body):
    """OpenAI's `text.format`: the fields of `response_format` without the level between."""

    type: FormatType
    name: Text | None = Field(None, description="without effect")
    description: Text | None = Field(None, description="without effect")
    schema_: dict[str, Any] | None = Field(None, alias="schema", description="the JSON schema of the answer")
    strict: bool = Field(False, description="without effect: the answer always satisfies the schema")

    @model_validator(mode="after")
    def _a_schema_belongs_to_its_type(self) -> "TextFormat":
        if (self.type == "json_schema") != (self.schema_ is not None):
            rule = "be there" if self.schema_ is None else "be absent"
            raise bad_request(f"text.format.schema must {rule} with the type {self.type}", "text.format.schema")
        return self


class AnswerText(Body):
    """OpenAI's `text`."""

    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {"verbosity": ("medium",)}

    format: TextFormat | None = Field(None, description="{type: json_object} or {type: json_schema, name, schema}")

    @property
    def form(self) -> AnswerForm | None:
        """What the answer may be; None: any text."""
        if self.format is None:
            return None
        return format_form(self.format.type, self.format.schema_, "text.format", "text.format.schema")


class ResponseRequest(StructuredFields, DiffusionFields):
    """`POST /v1/responses`: OpenAI's responses, text in, text out, nothing stored."""

    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **NEUTRAL,
        "background": (False,),
        "context_management": (),
        "conversation": (),
        "max_tool_calls": (),
        "previous_response_id": (),
        "prompt": (),
        "stream_options": ({}, {"include_obfuscation": False}),
        "truncation": ("disabled",),
    }
    length_names = (*DiffusionFields.length_names, "max_output_tokens")

    input: Annotated[
        Annotated[NonEmptyText, Tag("<text>")] | Annotated[NonEmptyList[InputItem], Tag("<messages>")],
        kind("<text>", "<messages>"),
    ] = Field(description="a user's text, or a conversation")
    instructions: Text | None = Field(None, description="a system message before the input")
    include: List[Literal["message.output_text.logprobs"]] = Field([], description="log-probabilities of the text")
    top_logprobs: int = Field(0, ge=0, le=20, description="with log-probabilities: report this many alternatives")
    max_output_tokens: int | None = Field(None, ge=1, description="this endpoint's name for max_tokens")
    reasoning: ResponseReasoning | None = Field(None, description="its effort chooses a preset")
    text: AnswerText | None = Field(None, description="its format says what the answer is")

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"input": "What is the capital of France?", "max_output_tokens": 32}]}
    )

    @model_validator(mode="after")
    def _alternatives_need_logprobs(self) -> "ResponseRequest":
        if self.top_logprobs and not self.include:
            raise bad_request(
                f"top_logprobs is {self.top_logprobs}; it must be absent unless include asks for log-probabilities",
                "top_logprobs",
            )
        return self

    @model_validator(mode="after")
    def _input_holds_a_turn(self) -> "ResponseRequest":
        items = [] if isinstance(self.input, str) else self.input
        if items and all(isinstance(item, ReasoningItem) and not item.text for item in items):
            raise bad_request("input holds only empty thinking; it must hold a message, or thinking with text", "input")
        return self

    @model_validator(mode="after")
    def _at_most_one_form(self) -> "ResponseRequest":
        if self.structured_outputs is not None and self.text is not None and self.text.form is not None:
            raise bad_request(
                "structured_outputs is given beside text.format; at most one of them must say what the answer is",
                "structured_outputs",
            )
        return self

    @property
    def form(self) -> AnswerForm | None:
        return super().form or (self.text.form if self.text else None)

    @property
    def num_alternatives(self) -> int | None:
        """The number of alternatives reported with log-probabilities; None: no log-probabilities."""
        return self.top_logprobs if self.include else None

    @property
    def chosen_preset(self) -> Preset:
        """The preset under any of its names, `reasoning.effort` included."""
        effort = self.reasoning.effort if self.reasoning else None
        if effort is None or {"preset", "realtime", "reasoning_effort"} & self.model_fields_set:
            return super().chosen_preset
        return PRESET_OF_EFFORT[effort]

    @property
    def messages(self) -> list[ChatMessage]:
        """The conversation to reply to."""
        system = [ChatMessage(role="system", content=self.instructions)] if self.instructions else []
        if isinstance(self.input, str):
            return [*system, ChatMessage(role="user", content=self.input)]
        turns: list[ChatMessage] = []
        thinking = ""
        for item in self.input:
            if isinstance(item, ReasoningItem):
                thinking += item.text
            elif item.role == "assistant":
                turns.append(item.as_chat(thinking))
                thinking = ""
            else:
                turns += [*_only(thinking), item.as_chat()]
                thinking = ""
        return [*system, *turns, *_only(thinking)]


def _only(thinking: str) -> list[ChatMessage]:
    """The turn of an answer that was cut off while it was thinking; none without thinking."""
    return [ChatMessage(role="assistant", reasoning_content=thinking)] if thinking else []
