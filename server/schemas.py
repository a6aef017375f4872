"""Request bodies, checked by pydantic. What API.md does not list is refused by name, never accepted and ignored."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    model_validator,
)

from llada_core.sampling import PRESETS, REMASKING, GenerationParams
from llada_core.sampling.cache_policy import WINDOWS
from llada_core.sampling.params import METHODS, SEMI_AUTOREGRESSIVE_PADDING
from server.errors import bad_request, shortened

TokenId = Annotated[int, Field(ge=0)]
# JSON's names of non-negative numbers: of tokens, and of positions.
NumberKey = Annotated[str, StringConstraints(pattern=r"^(0|[1-9][0-9]{0,8})$")]


def _encodable(text: str) -> str:
    """JSON can write half a surrogate pair, which no tokenizer can read."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"be Unicode text; it has a lone surrogate at character {error.start}") from None
    return text


Text = Annotated[str, AfterValidator(_encodable)]

# Given under the same name here; the length has several, the seed may be drawn.
_PARAMS = {field.name for field in fields(GenerationParams)} - {"gen_length", "seed"}

# Fields of the OpenAI and vLLM protocols that have no effect here: accepted at the values that ask for none.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "length_penalty": (1,),
    "logprobs": (False,),
    "min_p": (0,),
    "min_tokens": (0,),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True, False),
    "presence_penalty": (0,),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "store": (False,),
    "suffix": (),
    "tool_choice": ("none",),
    "tools": ([],),
    "top_logprobs": (0,),
    "use_beam_search": (False,),
}


class Body(BaseModel):
    """Strict types, no unknown names; null means absent."""

    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())
    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    @model_validator(mode="before")
    @classmethod
    def _drop_what_asks_for_nothing(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        kept = {}
        for name, value in data.items():
            if value is None and (name in cls.model_fields or name in cls.neutral):
                continue
            if name in cls.neutral and name not in cls.model_fields:
                if not any(_is_same(value, neutral) for neutral in cls.neutral[name]):
                    raise _unsupported(name, value, cls.neutral[name])
                continue
            kept[name] = _with_whole_numbers(value)
        return kept


class StreamOptions(Body):
    """OpenAI's `stream_options`."""

    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class DiffusionFields(Body):
    """How to denoise: the fields of `GenerationParams`, whose defaults or the preset's hold where one is absent."""

    neutral = _NEUTRAL
    length_names: ClassVar[tuple[str, ...]] = ("max_tokens", "max_completion_tokens", "gen_length")

    model: str | None = Field(None, description="the served model's name; may be omitted")
    max_tokens: int | None = Field(None, ge=1, description="generation length; default min(128, room left)")
    max_completion_tokens: int | None = Field(None, ge=1, description="another name of max_tokens")
    gen_length: int | None = Field(None, ge=1, description="LLaDA's name of max_tokens")
    steps: int | None = Field(None, ge=1, description="denoising steps over the whole response; default max_tokens")
    block_length: int | None = Field(None, ge=1, description="positions of a block; default 32")
    method: Literal[METHODS] = Field(SEMI_AUTOREGRESSIVE_PADDING, description="how blocks and canvas relate")  # type: ignore[valid-type]
    remasking: Literal[tuple(REMASKING)] = Field("low_confidence", description="which proposals stay masked")  # type: ignore[valid-type]
    confidence_threshold: float | None = Field(
        None, gt=0, le=1, description="parallel decoding: commit what reaches this probability"
    )
    confidence_factor: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="parallel decoding: the n-th needs 1 - factor / (n + 1)"
    )
    entropy_bound: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="parallel decoding: bound on the entropies committed together"
    )
    cache: Literal[tuple(WINDOWS)] = Field("none", description="approximate block-wise KV cache")  # type: ignore[valid-type]
    cache_refresh_interval: int | None = Field(
        None, ge=1, description="steps of a block between refreshes of its cache; default once per block"
    )
    preset: Literal[tuple(PRESETS)] = Field("exact", description="bundle of settings; a field given beside it wins")  # type: ignore[valid-type]
    temperature: float = Field(0.0, ge=0, allow_inf_nan=False, description="of the Gumbel noise; 0: greedy")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus among which a temperature above 0 draws")
    top_k: int = Field(0, ge=-1, description="tokens among which a temperature above 0 draws; 0 or -1: all")
    cfg_scale: float = Field(0.0, ge=0, allow_inf_nan=False, description="classifier-free guidance")
    seed: int | None = Field(None, ge=-(2**63), lt=2**64, description="same request, same seed, same tokens")
    logit_bias: dict[NumberKey, Annotated[float, Field(ge=-100, le=100)]] = Field(
        {}, description="token id → what is added to its logit"
    )
    logits_eos_inf: bool = Field(False, description="never generate EOS")
    confidence_eos_eot_inf: bool = Field(False, description="commit EOS and EoT last")
    ignore_eos: bool = Field(False, description="EOS and EoT do not end the text")
    stop_token_ids: list[TokenId] = Field([], description="further tokens that end the text")
    stop: Text | Annotated[list[Text], Field(max_length=4)] = Field(
        [], description="a string or up to 4, before the first of which the text ends"
    )
    stream: bool = Field(False, description="answer in server-sent events")
    user: str | None = Field(None, description="logged")
    metadata: dict[str, str] | None = Field(None, description="logged")

    @model_validator(mode="after")
    def _one_name_for_the_length(self) -> "DiffusionFields":
        given = [name for name in self.length_names if getattr(self, name)]
        if len(given) > 1:
            raise bad_request(f"{given[1]} is given beside {given[0]}; only one of them may be", given[1])
        return self

    @property
    def length(self) -> int | None:
        """The generation length asked for, under any of its names."""
        return next((getattr(self, name) for name in self.length_names if getattr(self, name)), None)

    def to_params(self, *, gen_length: int, seed: int) -> GenerationParams:
        """The settings for the core.

        Raises:
            InvalidParameterError: settings that contradict each other.
        """
        given: dict[str, Any] = {name: getattr(self, name) for name in _PARAMS if name in self.model_fields_set}
        if "top_k" in given:
            given["top_k"] = max(0, self.top_k)
        if "stop_token_ids" in given:
            given["stop_token_ids"] = frozenset(self.stop_token_ids)
        if "stop" in given:
            given["stop"] = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        if "logit_bias" in given:
            given["logit_bias"] = {int(token_id): bias for token_id, bias in self.logit_bias.items()}
        return GenerationParams.with_preset(self.preset, gen_length=gen_length, seed=seed, **given)


class StructuredOutputs(Body):
    """vLLM's `structured_outputs`; of its kinds only a choice."""

    choice: list[Annotated[Text, Field(min_length=1)]] = Field(
        min_length=1, max_length=64, description="the answer is one of these, the likeliest"
    )


class OpenAIFields(DiffusionFields):
    """What completions and chat completions share beyond the diffusion fields."""

    # An answer that is chosen is not denoised: what says how to denoise has no place beside it.
    beside_a_choice: ClassVar[frozenset[str]] = frozenset(
        {
            *("model", "prompt", "messages", "add_generation_prompt", "continue_final_message", "structured_outputs"),
            *("n", "seed", "temperature", "cfg_scale", *DiffusionFields.length_names),
            *("stream", "stream_options", "return_token_ids", "user", "metadata"),
        }
    )

    n: int = Field(1, ge=1, le=128, description="choices for each prompt; the i-th has the seed plus i")
    stream_options: StreamOptions | None = Field(None, description="with stream: usage in a last chunk")
    diffusing: bool = Field(False, description="with stream: every chunk is the whole current draft")
    return_token_ids: bool = Field(False, description="add token_ids to each choice, and prompt_token_ids")
    structured_outputs: StructuredOutputs | None = Field(None, description='{"choice": [...]}: one of these strings')

    @model_validator(mode="after")
    def _a_choice_is_not_denoised(self) -> "OpenAIFields":
        if self.structured_outputs is not None:
            for name in sorted(self.model_fields_set - self.beside_a_choice):
                raise bad_request(f"{name} is given beside structured_outputs; it must be absent", name)
        return self

    @property
    @abstractmethod
    def num_alternatives(self) -> int | None:
        """How many alternatives to report with log-probabilities; None: no log-probabilities."""

    @model_validator(mode="after")
    def _drafts_have_no_logprobs(self) -> "OpenAIFields":
        if self.diffusing and self.num_alternatives is not None:
            raise bad_request("logprobs is given beside diffusing; it must be absent: a draft is not final", "logprobs")
        return self

    @model_validator(mode="after")
    def _streaming_fields_need_stream(self) -> "OpenAIFields":
        for name in ("diffusing", "stream_options"):
            if getattr(self, name) and not self.stream:
                raise bad_request(f"{name} is given; it must be absent unless stream is true", name)
        return self


class CompletionRequest(OpenAIFields):
    """`POST /v1/completions`."""

    prompt: Text | list[TokenId] | list[Text] | list[list[TokenId]] = Field(
        description="text or token ids, or a list of them"
    )
    suffix: Text | None = Field(None, description="text after the gap that is to be filled")
    echo: bool = Field(False, description="the text begins with the prompt")
    logprobs: int | None = Field(
        None, ge=0, le=5, description="each token's log-probability when it was committed, and so many alternatives"
    )

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"prompt": "Once upon a time", "max_tokens": 32, "steps": 16}]}
    )

    @property
    def num_alternatives(self) -> int | None:
        return self.logprobs

    @property
    def prompts(self) -> list[str | list[int]]:
        """What each choice, or group of `n` choices, begins with."""
        is_list = isinstance(self.prompt, list) and self.prompt and not isinstance(self.prompt[0], int)
        return list(self.prompt) if is_list else [self.prompt]  # type: ignore[arg-type, list-item]


class FillInTheMiddleRequest(CompletionRequest):
    """`POST /v1/fim/completions`: a completion whose suffix is required (Mercury's route)."""

    suffix: Text = Field(description="text after the gap that is to be filled")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"prompt": "Once upon a time there was a ", "suffix": " named Tom.", "max_tokens": 2}]
        }
    )


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


class ChatCompletionRequest(ChatFields, OpenAIFields):
    """`POST /v1/chat/completions`."""

    messages: list[ChatMessage] = Field(min_length=1, description="the conversation so far")
    logprobs: bool = Field(False, description="each token's log-probability when it was committed")
    top_logprobs: int = Field(0, ge=0, le=20, description="with logprobs: so many alternatives")

    @model_validator(mode="after")
    def _alternatives_need_logprobs(self) -> "ChatCompletionRequest":
        if self.top_logprobs and not self.logprobs:
            raise bad_request(
                f"top_logprobs is {self.top_logprobs}; it must be absent unless logprobs is true", "top_logprobs"
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


class ResponseText(Body):
    """A content part of the responses endpoint, of OpenAI's kinds only text; of an input or an answer sent back."""

    neutral = {"annotations": ([],), "logprobs": ([],)}

    type: Literal["input_text", "output_text"]
    text: Text


class ResponseMessage(Body):
    """A turn of the responses endpoint's input."""

    neutral = {"phase": ("commentary", "final_answer")}

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Text | list[ResponseText]
    id: str | None = Field(None, description="of an answer that is sent back; without effect")
    status: str | None = Field(None, description="of an answer that is sent back; without effect")

    def as_chat(self) -> ChatMessage:
        """The same turn for the chat template."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        role: Any = "system" if self.role == "developer" else self.role
        return ChatMessage(role=role, content=text)


class ResponseRequest(DiffusionFields):
    """`POST /v1/responses`: OpenAI's responses, text in and text out, nothing stored."""

    neutral = {
        **_NEUTRAL,
        "background": (False,),
        "conversation": (),
        "include": ([],),
        "max_tool_calls": (),
        "previous_response_id": (),
        "prompt": (),
        "prompt_cache_key": (),
        "reasoning": (),
        "safety_identifier": (),
        "stream_options": ({}, {"include_obfuscation": False}),
        "text": ({"format": {"type": "text"}}, {}),
        "tool_choice": ("none", "auto"),
        "truncation": ("disabled",),
    }
    length_names = (*DiffusionFields.length_names, "max_output_tokens")

    input: Text | list[ResponseMessage] = Field(min_length=1, description="text of the user, or a conversation")
    instructions: Text | None = Field(None, description="a system message before the input")
    max_output_tokens: int | None = Field(None, ge=1, description="this endpoint's name of max_tokens")

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"input": "What is the capital of France?", "max_output_tokens": 32}]}
    )

    @property
    def messages(self) -> list[ChatMessage]:
        """The conversation to reply to."""
        system = [ChatMessage(role="system", content=self.instructions)] if self.instructions else []
        if isinstance(self.input, str):
            return [*system, ChatMessage(role="user", content=self.input)]
        return [*system, *(message.as_chat() for message in self.input)]


class MaskGap(Body):
    """Positions of a canvas that are to be filled."""

    mask: int = Field(ge=1, description="how many")


def _kind_of_segment(value: Any) -> str | None:
    kinds = ((str, "<text>"), (list, "<ids>"), ((dict, MaskGap), "<gap>"))
    return next((tag for kind, tag in kinds if isinstance(value, kind)), None)


# Told apart before they are checked, so that an error speaks of the one that was meant.
Segment = Annotated[
    Annotated[Text, Tag("<text>")] | Annotated[list[TokenId], Tag("<ids>")] | Annotated[MaskGap, Tag("<gap>")],
    Discriminator(
        _kind_of_segment,
        custom_error_type="segment",
        custom_error_message='be a string, a list of token ids or {"mask": n}',
    ),
]


class DenoiseRequest(PromptOrMessages, DiffusionFields):
    """`POST /v1/denoise`."""

    exclusive = ("prompt", "messages", "canvas")

    prompt: Text | list[TokenId] | None = Field(None, description="text or token ids")
    canvas: list[Segment] | None = Field(
        None, description="segments of text or token ids, and gaps between them, for infilling"
    )
    constraints: dict[NumberKey, Text | list[TokenId]] = Field(
        {}, description="text or token ids that stand at a position of the response"
    )
    stream: Literal[True] = Field(True, description="always streamed")
    include_predictions: bool = Field(False, description="also the best guess at every masked position")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"prompt": "Once upon a time", "max_tokens": 32, "steps": 8},
                {"canvas": ["Once upon a time there was a ", {"mask": 6}, ". They were best friends."]},
            ]
        }
    )

    @model_validator(mode="after")
    def _a_canvas_has_its_own_length(self) -> "DenoiseRequest":
        if self.canvas is not None:
            for name in (*self.length_names, "constraints"):
                if getattr(self, name):
                    raise bad_request(f"{name} is given beside canvas; it must be absent", name)
        return self


class ScoreRequest(Body):
    """`POST /v1/score`."""

    model: str | None = Field(None, description="the served model's name; may be omitted")
    prompt: Text | list[TokenId] = Field(description="text or token ids")
    completion: Text | list[TokenId] = Field(description="text or token ids whose likelihood is asked for")
    mc_num: int = Field(128, ge=1, le=4096, description="draws of the Monte-Carlo estimate")
    cfg_scale: float = Field(0.0, ge=0, le=1e6, description="classifier-free guidance")
    seed: int | None = Field(None, ge=-(2**63), lt=2**64, description="same request, same seed, same estimate")

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"prompt": "The capital of France is", "completion": " Paris.", "mc_num": 32, "seed": 0}]
        }
    )


class TokenizeRequest(PromptOrMessages):
    """`POST /tokenize`."""

    model: str | None = Field(None, description="the served model's name; may be omitted")
    prompt: Text | None = Field(None, description="text")
    add_special_tokens: bool = Field(True, description="with a prompt: add what the tokenizer itself adds")
    return_token_strs: bool = Field(False, description="also every token as a string")

    model_config = ConfigDict(json_schema_extra={"examples": [{"prompt": "Once upon a time"}]})


class DetokenizeRequest(Body):
    """`POST /detokenize`."""

    model: str | None = Field(None, description="the served model's name; may be omitted")
    tokens: list[TokenId] = Field(description="token ids")

    model_config = ConfigDict(json_schema_extra={"examples": [{"tokens": [20, 30, 40]}]})


def _with_whole_numbers(value: Any) -> Any:
    """JSON knows numbers alone: 2.0 is as good a count as 2."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case list():
            return [_with_whole_numbers(item) for item in value]
        case dict():
            return {name: _with_whole_numbers(item) for name, item in value.items()}
    return value


def _is_same(value: object, neutral: object) -> bool:
    """Equal, and not merely as False equals 0."""
    return isinstance(value, bool) == isinstance(neutral, bool) and value == neutral


def _unsupported(name: str, value: object, neutral: Sequence[object]) -> Exception:
    allowed = ", ".join(repr(one) for one in neutral)
    rule = f"{allowed} or absent" if allowed else "absent"
    return bad_request(
        f"{name} is {shortened(value)}; it must be {rule}: this server does not support it", name, "unsupported_value"
    )
