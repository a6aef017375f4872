"""Shapes of the answers, as the OpenAPI page promises them.

Small answers are made from these classes. Generated ones are built beside the generation, where a field may be the
growing text of a stream: of those the classes are the documentation, and the tests hold real answers against them.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Settings = Annotated[dict[str, Any], Field(description="the settings used, defaults and preset resolved")]
FinishReason = Literal["stop", "length"]


class Answer(BaseModel):
    """Exactly these fields."""

    model_config = ConfigDict(extra="forbid")


class Status(Answer):
    """`GET /health` and `GET /ready`."""

    status: Literal["ok"] = "ok"


class Version(Answer):
    """`GET /version`."""

    version: str


class ModelCard(Answer):
    """A model as OpenAI lists it, and what its users need to know."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "llada"
    max_model_len: int = Field(description="positions of prompt and response together")
    mask_token_id: int
    vocab_size: int


class ModelList(Answer):
    """`GET /v1/models`."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Tokens(Answer):
    """`POST /tokenize`, as vLLM has it."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizedText(Answer):
    """`POST /detokenize`, as vLLM has it."""

    prompt: str


class ScoreUsage(Answer):
    """Tokens read, and the work they took."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    forward_passes: int


class Score(Answer):
    """`POST /v1/score`."""

    log_likelihood: float = Field(description="in nats")
    stderr: float | None = Field(description="standard error; null for one draw")
    num_tokens: int = Field(description="tokens of the completion")
    mc_num: int
    seed: int
    usage: ScoreUsage


class Usage(ScoreUsage):
    """Tokens of prompt and text (not of the canvas), and the work they took."""

    denoising_steps: int


class AnyChoice(Answer):
    """One generation; the last fields are there when they were asked for."""

    index: int = Field(description="prompt index · n + i")
    finish_reason: FinishReason
    commit_steps: list[int | None] | None = Field(None, description="with logprobs: the step that wrote each token")
    token_ids: list[int] | None = Field(None, description="with return_token_ids")


class CompletionLogprobs(Answer):
    """One entry a token; null for those of an echoed prompt."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(AnyChoice):
    """A completion's text."""

    text: str
    logprobs: CompletionLogprobs | None
    prompt_token_ids: list[int] | None = Field(None, description="with return_token_ids")


class ScoredText(Answer):
    """A token, its log-probability when it was committed, and its bytes where they are whole characters."""

    token: str
    logprob: float
    bytes: list[int] | None


class ChatLogprob(ScoredText):
    """A token of the reply, and what else could have stood there."""

    top_logprobs: list[ScoredText]


class ChatLogprobs(Answer):
    """One entry a token."""

    content: list[ChatLogprob]
    refusal: None


class Reply(Answer):
    """The assistant's turn."""

    role: Literal["assistant"]
    content: str
    refusal: None


class ChatChoice(AnyChoice):
    """A reply."""

    message: Reply
    logprobs: ChatLogprobs | None


class OpenAIObject(Answer):
    """What completions and chat completions share."""

    id: str
    created: int = Field(description="in seconds since 1970")
    model: str
    usage: Usage
    generation_params: Settings


class Completion(OpenAIObject):
    """`POST /v1/completions` and `POST /v1/fim/completions`."""

    object: Literal["text_completion"]
    choices: list[CompletionChoice]


class ChatCompletion(OpenAIObject):
    """`POST /v1/chat/completions`."""

    object: Literal["chat.completion"]
    choices: list[ChatChoice]
    prompt_token_ids: list[int] | None = Field(None, description="with return_token_ids")


class OutputText(Answer):
    """The text of a response."""

    type: Literal["output_text"]
    text: str
    annotations: list[None]
    logprobs: list[None]


class OutputMessage(Answer):
    """The assistant's turn."""

    type: Literal["message"]
    id: str
    status: Literal["completed", "incomplete"]
    role: Literal["assistant"]
    content: list[OutputText]


class IncompleteDetails(Answer):
    """Why a response is incomplete."""

    reason: Literal["max_output_tokens"]


class ResponseUsage(Answer):
    """OpenAI's names for what `Usage` counts."""

    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    output_tokens_details: dict[str, int]
    total_tokens: int
    denoising_steps: int
    forward_passes: int


class ResponseObject(Answer):
    """`POST /v1/responses`, finished."""

    id: str
    object: Literal["response"]
    created_at: int = Field(description="in seconds since 1970")
    status: Literal["completed", "incomplete"]
    error: None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int
    metadata: dict[str, str]
    model: str
    output: list[OutputMessage]
    parallel_tool_calls: bool
    previous_response_id: None
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: Literal["none"]
    tools: list[None]
    top_p: float
    truncation: Literal["disabled"]
    usage: ResponseUsage
    user: str | None
    generation_params: Settings


def events(description: str, *fields: str) -> dict[str, Any]:
    """The OpenAPI page's schema of a server-sent event that has these fields, all of them text."""
    return {
        "type": "object",
        "description": description,
        "properties": {field: {"type": "string"} for field in fields},
        "required": list(fields),
        "additionalProperties": False,
    }


CHUNKS = events("with stream: chunks as JSON, then [DONE]", "data")


def answers(model: type[Answer] | None, stream: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI page's entry of a route that answers in JSON of `model`, if any, or streams events."""
    entry: dict[str, Any] = {"description": "the answer", "content": {"text/event-stream": {"schema": stream}}}
    return {200: entry if model is None else {**entry, "model": model}}
