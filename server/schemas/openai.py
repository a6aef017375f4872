"""The bodies of completions, fill-in-the-middle and chat completions."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import ConfigDict, Field, Tag, model_validator

from server.http.api_error import bad_request
from server.schemas.base import Body, NonEmptyList, NonEmptyText, Text, TokenIds, kind
from server.schemas.conversation import ChatFields, ChatMessage
from server.schemas.diffusion import NEUTRAL, DiffusionFields
from server.schemas.structured import FormattedFields
from server.schemas.tools import CallingFields


class StreamOptions(Body):
    """OpenAI's `stream_options`."""

    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {"include_obfuscation": (False,)}

    include_usage: bool = False
    continuous_usage_stats: bool = Field(False, description="with include_usage: every chunk carries the usage so far")


class OpenAIFields(FormattedFields, DiffusionFields):
    """The fields that completions and chat completions share beyond those of diffusion."""

    n: int = Field(1, ge=1, le=128, description="number of choices for each prompt; choice i uses the seed plus i")
    stream_options: StreamOptions | None = Field(
        None, description="with stream: whether a last chunk carries the usage"
    )
    diffusing: bool = Field(False, description="with stream: every chunk is the whole current draft")
    return_tokens_as_token_ids: bool = Field(False, description="with logprobs: write tokens as token_id:5")
    return_token_ids: bool = Field(False, description="add token_ids to each choice, and prompt_token_ids")

    @property
    @abstractmethod
    def num_alternatives(self) -> int | None:
        """The number of alternatives reported with log-probabilities; None: no log-probabilities."""

    @model_validator(mode="after")
    def _drafts_have_no_logprobs(self) -> "OpenAIFields":
        if self.diffusing and self.num_alternatives is not None:
            raise bad_request(
                "logprobs are requested beside diffusing; they must be absent: a draft is not final", "logprobs"
            )
        return self

    @model_validator(mode="after")
    def _streaming_fields_need_stream(self) -> "OpenAIFields":
        if self.stream:
            return self
        if self.diffusing:
            raise bad_request("diffusing is true; it must be absent unless stream is true", "diffusing")
        if self.stream_options is not None and self.stream_options.include_usage:
            raise bad_request(
                "stream_options.include_usage is true; it must be absent unless stream is true", "stream_options"
            )
        return self


class CompletionRequest(OpenAIFields):
    """`POST /v1/completions`."""

    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {**NEUTRAL, "add_special_tokens": (True,)}

    prompt: Annotated[
        Annotated[NonEmptyText, Tag("<text>")]
        | Annotated[TokenIds, Tag("<ids>")]
        | Annotated[NonEmptyList[NonEmptyText], Tag("<texts>")]
        | Annotated[NonEmptyList[TokenIds], Tag("<lists of ids>")],
        kind("<text>", "<texts>", "<lists of ids>", "<ids>"),
    ] = Field(description="text or token ids, or a list of them")
    suffix: Text | None = Field(None, description="text after the gap to fill")
    echo: bool = Field(False, description="begin the text with the prompt")
    logprobs: int | None = Field(
        None,
        ge=0,
        le=5,
        description="report each token's log-probability when it was committed, and this many alternatives",
    )

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"prompt": "Once upon a time", "max_tokens": 32, "steps": 16}]}
    )

    @property
    def num_alternatives(self) -> int | None:
        return self.logprobs

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, each of which `n` choices follow."""
        is_list = isinstance(self.prompt, list) and self.prompt and not isinstance(self.prompt[0], int)
        return list(self.prompt) if is_list else [self.prompt]  # type: ignore[arg-type, list-item]


class FillInTheMiddleRequest(CompletionRequest):
    """`POST /v1/fim/completions`: a completion whose suffix is required (Mercury's route)."""

    suffix: Text = Field(description="text after the gap to fill")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"prompt": "Once upon a time there was a ", "suffix": " named Tom.", "max_tokens": 2}]
        }
    )


class ChatCompletionRequest(ChatFields, CallingFields, OpenAIFields):
    """`POST /v1/chat/completions`."""

    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {**NEUTRAL, "add_special_tokens": (False,)}

    messages: NonEmptyList[ChatMessage] = Field(description="the conversation so far")
    logprobs: bool = Field(False, description="report each token's log-probability when it was committed")
    top_logprobs: int = Field(0, ge=0, le=20, description="with logprobs: report this many alternatives")

    @model_validator(mode="after")
    def _alternatives_need_logprobs(self) -> "ChatCompletionRequest":
        if self.top_logprobs and not self.logprobs:
            raise bad_request(
                f"top_logprobs is {self.top_logprobs}; it must be absent unless logprobs is true", "top_logprobs"
            )
        return self

    @model_validator(mode="after")
    def _a_call_has_a_form_of_its_own(self) -> "ChatCompletionRequest":
        if self.calls == "none":
            return self
        if self.form is not None:
            name = self.form.field.split(".")[0]
            raise bad_request(f"{name} is given beside tools; it must be absent unless tool_choice is none", name)
        if self.diffusing:
            raise bad_request(
                "diffusing is true beside tools; it must be absent unless tool_choice is none", "diffusing"
            )
        return self

    @property
    def num_alternatives(self) -> int | None:
        return self.top_logprobs if self.logprobs else None

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"messages": [{"role": "user", "content": "What is the capital of France?"}], "max_tokens": 32}
            ]
        }
    )
