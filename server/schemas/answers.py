"""The shapes of the answers, as the OpenAPI page promises them.

Small answers are instances of these classes. Generated ones are built in `server/replies`, where a field may be the
growing text of a stream; for those the classes are documentation, and the tests check real answers against them.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Settings = Annotated[dict[str, Any], Field(description="the settings used, defaults and preset resolved")]
FinishReason = Literal["stop", "length"]


class Answer(BaseModel):
    """An answer has exactly the fields of its class."""

    model_config = ConfigDict(extra="forbid")


class Status(Answer):
    """`GET /health` and `GET /ready`."""

    status: Literal["ok"] = "ok"


class Version(Answer):
    """`GET /version`."""

    version: str


class Load(Answer):
    """`GET /load`, in vLLM's shape."""

    server_load: int


class ModelCard(Answer):
    """A model as OpenAI lists it, with its limits and its mask token."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "llada"
    root: str = Field(description="vLLM's field; the same as id")
    parent: None = None
    permission: list[None] = []
    max_model_len: int = Field(description="the most positions of prompt and response together")
    mask_token_id: int
    vocab_size: int


class ModelList(Answer):
    """`GET /v1/models`."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Tokens(Answer):
    """`POST /tokenize`, in vLLM's shape."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class DetokenizedText(Answer):
    """`POST /detokenize`, in vLLM's shape."""

    prompt: str


class TokenizerInfo(Answer):
    """`GET /tokenizer_info`, with the names that vLLM and tokenizer_config.json use; null where there is none."""

    tokenizer_class: Literal["PreTrainedTokenizerFast"] = "PreTrainedTokenizerFast"
    vocab_size: int = Field(description="entries of the tokenizer; the model's head may have more columns")
    model_max_length: int
    bos_token: str | None
    eos_token: str | None
    mask_token: str | None
    eot_token: str | None
    added_tokens: dict[int, str] = Field(description="special tokens by id")
    chat_template: str = Field(description="the format of conversations, as a Jinja template")


class ScoreUsage(Answer):
    """The number of tokens, and the work they took."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    forward_passes: int


class Score(Answer):
    """`POST /v1/score`."""

    log_likelihood: float = Field(description="in nats")
    stderr: float | None = Field(description="standard error; null for a single draw")
    num_tokens: int = Field(description="tokens of the completion")
    mc_num: int
    seed: int
    usage: ScoreUsage


class Alternative(Answer):
    """A token that the model expects at a position, and its log-probability."""

    token_id: int
    text: str = Field(description="the token decoded by itself; empty for special tokens")
    logprob: float


class ReadMask(Answer):
    """A mask and the most probable tokens there, in descending order."""

    position: int = Field(description="counts from the first token of the response")
    top_logprobs: list[Alternative]


class RunFrame(Answer):
    """The frame that a fork goes on from."""

    id: str
    step: int


class Reading(Answer):
    """`POST /v1/denoise` with `steps` 0: nothing is committed."""

    id: str
    object: Literal["reading"]
    created: int = Field(description="in seconds since 1970")
    model: str
    mask_token_id: int
    token_ids: list[int] = Field(description="the response as it stands")
    masks: list[ReadMask] = Field(description="those that the model sees, left to right")
    usage: ScoreUsage
    generation_params: Settings
    parent: RunFrame | None = Field(description="of a fork")


class Usage(ScoreUsage):
    """The number of tokens of prompt and text (not of the canvas), and the work they took."""

    cache_passes: int
    denoising_steps: int
    prompt_tokens_details: dict[Literal["cached_tokens"], int] = Field(
        description="tokens of finished blocks that an earlier request had computed"
    )
    completion_tokens_details: dict[Literal["reasoning_tokens"], int] = Field(
        description="tokens of thinking that the answer shows apart"
    )


class AnyChoice(Answer):
    """One generation; the last fields are present if they were requested."""

    index: int = Field(description="prompt index · n + i")
    finish_reason: FinishReason
    stop_reason: str | int | None = Field(description="the stop string or stop id that ended the text, if one did")
    commit_steps: list[int | None] | None = Field(None, description="with logprobs: the step that committed each token")
    token_ids: list[int] | None = Field(None, description="with return_token_ids")


class CompletionLogprobs(Answer):
    """One entry per token; null for the tokens of an echoed prompt."""

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
    """A token, its log-probability when it was committed, and its bytes if they form whole characters."""

    token: str
    logprob: float
    bytes: list[int] | None


class ChatLogprob(ScoredText):
    """A token of the reply and its alternatives."""

    top_logprobs: list[ScoredText]


class ChatLogprobs(Answer):
    """One entry per token."""

    content: list[ChatLogprob]
    refusal: None


class CalledFunction(Answer):
    """A function that the answer calls."""

    name: str
    arguments: str = Field(description="a JSON object that satisfies the function's parameters")


class Call(Answer):
    """A call of a tool; its result goes into a turn with this id."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class Reply(Answer):
    """The assistant's turn."""

    role: Literal["assistant"]
    content: str | None = Field(description="null beside calls, or thinking, without text")
    refusal: None
    reasoning_content: str | None = Field(None, description="on models that think: the thinking, if there is any")
    reasoning: str | None = Field(None, description="the same under vLLM's newer name")
    tool_calls: list[Call] | None = Field(None, description="with tools: what the answer calls")


class ChatChoice(AnyChoice):
    """One reply to the conversation."""

    message: Reply
    finish_reason: Literal["stop", "length", "tool_calls"]  # type: ignore[assignment]
    logprobs: ChatLogprobs | None


class OpenAIObject(Answer):
    """The fields that completions and chat completions share."""

    id: str
    created: int = Field(description="in seconds since 1970")
    model: str
    system_fingerprint: str = Field(description="version and model: with the same seed, the same tokens")
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


class ResponseScoredText(Answer):
    """A token, its log-probability when it was committed, and its bytes; none if it ends within a character."""

    token: str
    logprob: float
    bytes: list[int]


class ResponseLogprob(ResponseScoredText):
    """A token of the response and its alternatives."""

    top_logprobs: list[ResponseScoredText]


class OutputText(Answer):
    """The text of a response."""

    type: Literal["output_text"]
    text: str
    annotations: list[None]
    logprobs: list[ResponseLogprob] = Field(description="with include: one entry per token")


class OutputMessage(Answer):
    """The assistant's turn."""

    type: Literal["message"]
    id: str
    status: Literal["completed", "incomplete"]
    role: Literal["assistant"]
    content: list[OutputText]


class ReasoningText(Answer):
    """The thinking of a response."""

    type: Literal["reasoning_text"]
    text: str


class OutputReasoning(Answer):
    """The thinking before the assistant's turn, on models that think."""

    type: Literal["reasoning"]
    id: str
    status: Literal["completed", "incomplete"]
    summary: list[None]
    content: list[ReasoningText]


class IncompleteDetails(Answer):
    """The reason why a response is incomplete."""

    reason: Literal["max_output_tokens"]


class ResponseUsage(Answer):
    """The counts of `Usage` under the names of OpenAI's responses."""

    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    output_tokens_details: dict[str, int]
    total_tokens: int
    denoising_steps: int
    forward_passes: int
    cache_passes: int


# One attribute for each field of OpenAI's object.
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
    output: list[OutputReasoning | OutputMessage]
    parallel_tool_calls: bool
    previous_response_id: None
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: Literal["none"]
    tools: list[None]
    top_logprobs: int
    top_p: float
    truncation: Literal["disabled"]
    usage: ResponseUsage
    user: str | None
    generation_params: Settings


class InputTokens(Answer):
    """`POST /v1/responses/input_tokens`."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int


def events(description: str, *fields: str) -> dict[str, Any]:
    """The OpenAPI page's schema for a server-sent event with these fields, all of them text."""
    return {
        "type": "object",
        "description": description,
        "properties": {field: {"type": "string"} for field in fields},
        "required": list(fields),
        "additionalProperties": False,
    }


CHUNKS = events("with stream: chunks as JSON, then [DONE]", "data")


def answers(model: type[Answer] | None, stream: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI page's entry for a route that answers with a `model` in JSON, if any, or streams events."""
    entry: dict[str, Any] = {"description": "the answer", "content": {"text/event-stream": {"schema": stream}}}
    return {200: entry if model is None else {**entry, "model": model}}
