"""The fields that say how to denoise, shared by every endpoint that generates."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, Tag, WithJsonSchema, model_validator

from llada_core.sampling.params import (
    MOST_END_TOKENS,
    MOST_POST_STEPS,
    SEMI_AUTOREGRESSIVE_PADDING,
    Cache,
    EndThinking,
    GenerationParams,
    Method,
    Preset,
    Remasking,
    ScheduleName,
)
from server.http.api_error import bad_request
from server.schemas.base import MAX_ENTRIES, Body, NonEmptyText, NumberDict, Text, TokenId, few, kind

# Parameters with the same name in a body. The length has several names, and the seed may be random.
_PARAMS = {field.name for field in fields(GenerationParams)} - {"gen_length", "seed"}

# Unsupported fields of the OpenAI and vLLM protocols: accepted as null and at the values that request nothing.
NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "allowed_token_ids": (),
    "audio": (),
    "bad_words": ([],),
    "best_of": (1,),
    "cache_salt": (),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "documents": ([],),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "guided_choice": (),
    "guided_decoding_backend": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "guided_whitespace_pattern": (),
    "include_reasoning": (True,),
    "include_stop_str_in_output": (False,),
    "kv_transfer_params": (),
    "length_penalty": (1,),
    "logits_processors": ([],),
    "logprobs": (False,),
    "min_p": (0,),
    "mm_processor_kwargs": (),
    "modalities": (["text"],),
    "moderation": (),
    "n": (1,),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "presence_penalty": (0,),
    "priority": (0,),
    "prompt_cache_retention": (),
    "prompt_logprobs": (),
    "repetition_penalty": (1,),
    "request_id": (),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "store": (False,),
    "stream_options": (),
    "suffix": (),
    "thinking_token_budget": (),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "truncate_prompt_tokens": (),
    "use_beam_search": (False,),
    "verbosity": ("medium",),
    "vllm_xargs": (),
    "web_search_options": (),
}


# A longer one could end no answer that people wait for, and it is looked for at every character.
MAX_STOP_LENGTH = 1024


def _short(text: str) -> str:
    if len(text) > MAX_STOP_LENGTH:
        raise ValueError(f"have at most {MAX_STOP_LENGTH} characters; it has {len(text)}")
    return text


StopText = Annotated[
    NonEmptyText,
    AfterValidator(_short),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": MAX_STOP_LENGTH}),
]

# OpenAI's levels of effort, less to more.
Effort = Literal["none", "minimal", "instant", "low", "medium", "high", "xhigh", "max"]
PRESET_OF_EFFORT: Mapping[Effort, Preset] = {
    "none": "fast",
    "minimal": "fast",
    "instant": "fast",
    "low": "fast",
    "medium": "balanced",
    "high": "exact",
    "xhigh": "exact",
    "max": "exact",
}


class EndThinkingField(Body):
    """iLLaDA's boost to the tokens that close the thinking; see `EndThinking`."""

    token_ids: Annotated[list[TokenId], Field(fail_fast=True, min_length=1, max_length=MOST_END_TOKENS)] = Field(
        description="the tokens that close the thinking"
    )
    boost: float = Field(100.0, ge=0, le=1e6, description="the boost at the response's last position")
    power: float = Field(3.0, ge=0, le=1e6, description="the boost grows with this power of the response's share")


# One attribute for each field of the protocol.
class DiffusionFields(Body):
    """The fields of `GenerationParams`. An absent one has the preset's value or the default."""

    neutral = NEUTRAL
    length_names: ClassVar[tuple[str, ...]] = ("max_tokens", "max_completion_tokens", "gen_length")

    model: str | None = Field(None, description="the served model's name; may be omitted")
    max_tokens: int | None = Field(None, ge=1, description="generation length; default min(128, room left)")
    max_completion_tokens: int | None = Field(None, ge=1, description="another name for max_tokens")
    gen_length: int | None = Field(None, ge=1, description="LLaDA's name for max_tokens")
    steps: int | None = Field(None, ge=1, description="denoising steps over the whole response; default max_tokens")
    steps_per_block: int | None = Field(
        None,
        ge=1,
        description="denoising steps of every block, instead of steps; of a block-causal model also beside a parallel "
        "rule, whose steps then commit at least as many tokens",
    )
    schedule: ScheduleName | None = Field(
        None, description="how many tokens each step of a block commits; default the model's own"
    )
    eps: float | None = Field(None, gt=0, lt=1, description="time at which the schedule timestep ends; default 0.001")
    block_length: int | None = Field(
        None, ge=1, description="positions in a block; default the model's, or all of them under the schedule timestep"
    )
    method: Method = Field(SEMI_AUTOREGRESSIVE_PADDING, description="how blocks and canvas relate")
    remasking: Remasking = Field("low_confidence", description="which proposals stay masked")
    remasking_temperature: float = Field(
        0.0, ge=0, le=1e6, description="above 0: which proposals are kept is drawn, in proportion to exp(score / this)"
    )
    confidence_threshold: float | None = Field(
        None, gt=0, le=1, description="parallel decoding: commit every position whose probability reaches it"
    )
    confidence_factor: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="parallel decoding: the n-th position needs probability 1 - factor / (n + 1)",
    )
    entropy_bound: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="parallel decoding: bound on the entropies of the positions committed together",
    )
    entropy_threshold: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="parallel decoding: commit every position whose entropy, in nats, is at most this",
    )
    min_transfer: int | None = Field(
        None,
        ge=1,
        description="block-causal models: the fewest tokens that a step of a parallel rule commits; default 1",
    )
    editing_threshold: float | None = Field(
        None,
        ge=0,
        le=1,
        description="block-causal models: replace a written token of the active block where another is more probable "
        "than this",
    )
    max_post_steps: int | None = Field(
        None,
        ge=0,
        le=MOST_POST_STEPS,
        description="the most steps in which a block without masks is edited; default 16",
    )
    active_blocks: int = Field(1, ge=1, description="the most blocks that a parallel rule fills at once")
    cache: Cache = Field(
        "none",
        description="approximate KV cache: which keys and values later steps of a block keep; of a block-causal model "
        "exact by default",
    )
    cache_refresh_interval: int | None = Field(
        None, ge=1, description="steps between refreshes of the cache within a block; default once per block"
    )
    suffix_window: int | None = Field(
        None, ge=0, description="masked positions right of the active blocks that the model sees; default all"
    )
    preset: Preset = Field("exact", description="bundle of settings; a field given with it takes precedence")
    reasoning_effort: Effort | None = Field(
        None, description="chooses a preset: up to low fast, medium balanced, high and above exact"
    )
    realtime: bool = Field(False, description="Mercury's name for the preset fast")
    temperature: float = Field(0.0, ge=0, le=1e6, description="temperature of the Gumbel noise; 0: greedy")
    top_p: float = Field(
        1.0, ge=0, le=1, description="nucleus from which a temperature above 0 draws; 0: the most probable token"
    )
    top_k: int = Field(0, ge=-1, description="number of tokens from which a temperature above 0 draws; 0 or -1: all")
    cfg_scale: float = Field(0.0, ge=0, le=1e6, description="strength of classifier-free guidance")
    seed: int | None = Field(
        None, ge=-(2**63), lt=2**64, description="the same request with the same seed gives the same tokens"
    )
    logit_bias: NumberDict[Annotated[float, Field(ge=-100, le=100)]] = Field(
        {}, description="token id → number added to its logit"
    )
    end_thinking: EndThinkingField | None = Field(
        None, description="iLLaDA: boost the next token that closes the thinking, the more the later it is"
    )
    logits_eos_inf: bool = Field(False, description="never generate EOS")
    confidence_eos_eot_inf: bool = Field(False, description="commit EOS and EoT last")
    ignore_eos: bool = Field(False, description="EOS and EoT do not end the text")
    eos_early_stop: bool = Field(
        False, description="block-causal models: end the text before the block of its EOS is finished"
    )
    min_tokens: int = Field(0, ge=0, description="number of tokens before which no end token is written")
    stop_token_ids: Annotated[list[TokenId], Field(fail_fast=True, max_length=MAX_ENTRIES)] = Field(
        [], description="further tokens that end the text"
    )
    stop: Annotated[
        Annotated[StopText, Tag("<text>")]
        | Annotated[list[StopText], Field(fail_fast=True, max_length=4), Tag("<texts>")],
        kind("<text>", "<texts>"),
    ] = Field(
        [],
        description=f"a string of up to {MAX_STOP_LENGTH} characters, or up to 4; the text ends before the first "
        "occurrence of any",
    )
    stream: bool = Field(False, description="stream the answer as server-sent events")
    user: Text | None = Field(None, description="logged")
    safety_identifier: Text | None = Field(None, description="logged")
    prompt_cache_key: Text | None = Field(None, description="logged")
    metadata: Annotated[dict[Text, Text], Field(max_length=16), BeforeValidator(few)] | None = Field(
        None, description="logged"
    )

    @model_validator(mode="after")
    def _one_name_for_the_length(self) -> "DiffusionFields":
        lengths = {name: value for name in self.length_names if (value := getattr(self, name))}
        if len(set(lengths.values())) > 1:
            first, second = list(lengths)[:2]
            raise bad_request(
                f"{second} is {lengths[second]} beside {first}; they must be equal, or only one given", second
            )
        return self

    @property
    def chosen_preset(self) -> Preset:
        """The preset under any of its names; `preset` itself takes precedence."""
        if "preset" in self.model_fields_set:
            return self.preset
        if self.realtime:
            return "fast"
        return self.preset if self.reasoning_effort is None else PRESET_OF_EFFORT[self.reasoning_effort]

    @property
    def length_name(self) -> str:
        """The name under which the request gives the generation length, or else the usual name."""
        return next((name for name in self.length_names if getattr(self, name)), self.length_names[0])

    @property
    def length(self) -> int | None:
        """The requested generation length, under any of its names."""
        return getattr(self, self.length_name)

    def to_params(self, *, gen_length: int, seed: int, defaults: Mapping[str, Any] | None = None) -> GenerationParams:
        """The settings for the core.

        Args:
            defaults: the model's, for settings that the request leaves out.

        Raises:
            InvalidParameterError: settings that contradict each other.
        """
        return GenerationParams.with_preset(
            self.chosen_preset, defaults=defaults, gen_length=gen_length, seed=seed, **self._settings()
        )

    def altered(self, params: GenerationParams) -> GenerationParams:
        """Return `params` with the settings that the request gives, for the rest of a run.

        Raises:
            InvalidParameterError: settings that contradict each other.
        """
        settings = self._settings()
        if self.seed is not None:
            settings["seed"] = self.seed
        names_preset = "preset" in self.model_fields_set or self.realtime or self.reasoning_effort is not None
        return params.altered(self.chosen_preset if names_preset else None, **settings)

    def _settings(self) -> dict[str, Any]:
        """The settings that the request gives, apart from length and seed, as the core has them."""
        params: dict[str, Any] = {name: getattr(self, name) for name in _PARAMS if name in self.model_fields_set}
        if "top_k" in params:
            params["top_k"] = max(0, self.top_k)
        if "stop_token_ids" in params:
            params["stop_token_ids"] = frozenset(self.stop_token_ids)
        if "stop" in params:
            params["stop"] = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        if self.end_thinking is not None:
            end = self.end_thinking
            params["end_thinking"] = EndThinking(tuple(end.token_ids), boost=end.boost, power=end.power)
        if "logit_bias" in params:
            params["logit_bias"] = {int(token_id): bias for token_id, bias in self.logit_bias.items()}
        return params
