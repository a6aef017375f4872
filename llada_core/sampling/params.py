"""Every setting of the reverse process, validated in one place. The server's schemas and the CLIs follow this class.

It imports nothing but the errors: schemas and command lines that take these settings must start quickly.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from reprlib import repr as short
from typing import Any, Final, Literal, get_args

from llada_core.errors import InvalidParameterError

Method = Literal["semi_autoregressive_padding", "fixed_length", "semi_autoregressive_origin", "append"]
FIXED_LENGTH: Final = "fixed_length"
SEMI_AUTOREGRESSIVE_PADDING: Final = "semi_autoregressive_padding"
# Two names of one method: LLaDA's and iLLaDA's.
APPENDING: Final = ("semi_autoregressive_origin", "append")

# The names in `schedule.SCHEDULES`, `scores.SCORES`, `parallel_rules.PARALLEL_RULES` and `cache_policy.CACHE_POLICIES`;
# tests compare them.
ScheduleName = Literal["uniform", "timestep"]
TIMESTEP: Final = "timestep"
Remasking = Literal["low_confidence", "random", "margin", "entropy", "origin", "sequential"]
SEQUENTIAL: Final = "sequential"
ORIGIN: Final = "origin"
ParallelRule = Literal["confidence_threshold", "confidence_factor", "entropy_bound", "entropy_threshold"]
Cache = Literal["none", "prefix", "dual", "delayed", "exact"]
EXACT: Final = "exact"

Preset = Literal["exact", "balanced", "fast"]
# Bundles of settings, from the reference's tokens to the least computation; measured in docs/board.md.
PRESETS: Mapping[Preset, Mapping[str, Any]] = {
    "exact": {},
    "balanced": {"entropy_threshold": 0.1, "suffix_window": 64},
    "fast": {"entropy_threshold": 0.1, "cache": "delayed", "suffix_window": 40},
}

DEFAULT_BLOCK_LENGTH = 32

# LLaDA2.1's; the most bounds the steps of a block whose tokens never settle.
DEFAULT_POST_STEPS = 16
MOST_POST_STEPS = 1024

# The time at which the schedule `timestep` ends (Dream's `diffusion_generate`).
DEFAULT_EPS = 1e-3
# The schedule `timestep` lists all its steps, and `origin` runs them all; a longer response may have one per position.
MOST_STEPS_IN_TIME = 4096

# Settings that only some models' samplers know; see `PublishedSampler.settings`.
FAMILY_SETTINGS = ("end_thinking", "min_transfer", "editing_threshold", "max_post_steps", "eos_early_stop")

# The end of thinking is a word and the line breaks around it, in at most as many tokens as it has bytes.
MOST_END_TOKENS = 64

# Remasking that chooses at random, whatever the model is sure of.
RANDOM_REMASKING = ("random", ORIGIN)


@dataclass(frozen=True, slots=True)
class EndThinking:
    """A push towards the end of thinking, by a boost to the logit of the next token that closes it.

    Attributes:
        token_ids: the tokens that close the thinking, such as those of `</think>`.
        boost: the boost at the last position of the response.
        power: the boost is in proportion to this power of the share of the response up to the position.

    Raises:
        InvalidParameterError: no token, more than MOST_END_TOKENS, or a number out of range.
    """

    token_ids: tuple[int, ...]
    boost: float = 100.0
    power: float = 3.0

    def __post_init__(self) -> None:
        for name, is_met, rule in (
            ("token_ids", 0 < len(self.token_ids) <= MOST_END_TOKENS, f"have from 1 to {MOST_END_TOKENS} tokens"),
            ("boost", 0 <= self.boost <= 1e6, "be from 0 to 1000000"),
            ("power", 0 <= self.power <= 1e6, "be from 0 to 1000000"),
        ):
            if not is_met:
                value = short(getattr(self, name))
                raise InvalidParameterError(f"end_thinking: {name} is {value}; it must {rule}", "end_thinking")


# More than a dozen attributes: one for each sampling setting of the API.
@dataclass(frozen=True, slots=True)
class GenerationParams:
    """The settings of one request (names and defaults: docs/api.md, LLaDA's `generate.py`).

    Attributes:
        gen_length: positions of the response.
        steps: denoising steps over the whole response; None for one per masked position, or for a parallel rule.
        steps_per_block: denoising steps of every block, instead of `steps`. Block-causal models also take it beside a
            parallel rule, which then commits at least as many tokens in a step as these steps would.
        schedule: how many tokens each step of a block commits: a name in `SCHEDULES`; None for the model's own, or for
            a parallel rule.
        eps: the time at which the schedule `timestep` ends; None for DEFAULT_EPS.
        block_length: positions of a block; None for 32, or for everything under `fixed_length` and the schedule
            `timestep`. Clamped to gen_length. Block-causal models have a default of their own, and attend block by
            block; their blocks are counted from the prompt's first token and never clamped.
        method: `semi_autoregressive_padding` (blocks left to right on a full canvas), `fixed_length` (one block), or
            `semi_autoregressive_origin`, also called `append` (later blocks are not yet on the canvas).
        remasking: which proposals a step keeps: a name in `SCORES`.
        remasking_temperature: above 0, the proposals that a step keeps are drawn in proportion to
            exp(score / temperature).
        confidence_threshold, confidence_factor, entropy_bound, entropy_threshold: parallel decoding, at most one of
            them: the rule in `parallel_rules` decides how many proposals a step keeps, in the order that `remasking`
            ranks them.
        min_transfer: the fewest tokens that a parallel rule commits in a step, where no `steps_per_block` says it;
            None for 1. Block-causal models only.
        editing_threshold: replace a written token of the active block where another one's probability exceeds it
            (LLaDA2.1); None never does. Block-causal models only.
        max_post_steps: the most steps of a block without masks, in which its tokens settle; None for 16 if tokens may
            be edited.
        active_blocks: the most blocks that a parallel rule fills at once; see `Schedule`.
        cache: which positions later steps of a block recompute: `none` (all), or a name in `CACHE_POLICIES`.
            Approximate, but for `exact`, which only block-causal models have.
        cache_refresh_interval: steps of a block between two refreshes of its cache; None for once per block.
        suffix_window: positions right of the active block that the model sees, as far as only masks lie beyond them;
            None for all. Approximate.
        temperature: scale of the Gumbel noise on the logits; 0 takes the most probable token.
        top_k, top_p: limit the tokens from which a temperature above 0 draws; 0 and 1 for all.
        cfg_scale: strength of unsupervised classifier-free guidance; doubles the forward passes.
        seed: decides all noise; the same request with the same seed gives the same tokens in any batch.
        logit_bias: token id → a number added to its logit, after guidance and before the logit is used.
        end_thinking: pushes the model to close its thinking; only on models whose sampler knows it.
        logits_eos_inf: never generate EOS (appendix B.4).
        confidence_eos_eot_inf: commit EOS and EoT last (appendix B.4).
        ignore_eos: EOS and EoT do not end the text.
        eos_early_stop: a block-causal model stops as soon as an EOS is written behind finished text; otherwise it
            finishes the block. Other models always stop so.
        min_tokens: no token that ends the text is written before so many others.
        stop_token_ids: further tokens that end the text.
        stop: strings that end the text, which is cut before the first of them; they need a tokenizer.

    Raises:
        InvalidParameterError: a setting breaks a rule; the message names field, value and rule.
    """

    gen_length: int = 128
    steps: int | None = None
    steps_per_block: int | None = None
    schedule: str | None = None
    eps: float | None = None
    block_length: int | None = None
    method: str = SEMI_AUTOREGRESSIVE_PADDING
    remasking: str = "low_confidence"
    remasking_temperature: float = 0.0
    confidence_threshold: float | None = None
    confidence_factor: float | None = None
    entropy_bound: float | None = None
    entropy_threshold: float | None = None
    min_transfer: int | None = None
    editing_threshold: float | None = None
    max_post_steps: int | None = None
    active_blocks: int = 1
    cache: str = "none"
    cache_refresh_interval: int | None = None
    suffix_window: int | None = None
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    cfg_scale: float = 0.0
    seed: int = 0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    end_thinking: EndThinking | None = None
    logits_eos_inf: bool = False
    confidence_eos_eot_inf: bool = False
    ignore_eos: bool = False
    eos_early_stop: bool = False
    min_tokens: int = 0
    stop_token_ids: frozenset[int] = field(default_factory=frozenset)
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._require("gen_length", self.gen_length >= 1, "must be at least 1")
        self._require("steps", self.steps is None or self.steps >= 1, "must be at least 1")
        self._require("block_length", self.block_length is None or self.block_length >= 1, "must be at least 1")
        self._require("method", self.method in get_args(Method), f"must be one of {', '.join(get_args(Method))}")
        self._require(
            "remasking", self.remasking in get_args(Remasking), f"must be one of {', '.join(get_args(Remasking))}"
        )
        self._require("temperature", 0 <= self.temperature <= 1e6, "must be from 0 to 1000000")
        self._require("top_k", self.top_k >= 0, "must be at least 0 (0: all tokens)")
        self._require("top_p", 0 <= self.top_p <= 1, "must be from 0 to 1 (0: the most probable token)")
        self._require(
            "min_tokens", 0 <= self.min_tokens <= self.gen_length, f"must be from 0 to gen_length ({self.gen_length})"
        )
        # Beyond these bounds float32 logits overflow, and the error would look like broken weights.
        self._require("cfg_scale", 0 <= self.cfg_scale <= 1e6, "must be from 0 to 1000000")
        self._require(
            "block_length",
            self.method != FIXED_LENGTH or self.block_length is None or self.block_length >= self.gen_length,
            f"must be absent or {self.gen_length} (the generation length): method fixed_length has one block",
        )

        self._require("stop", all(self.stop), "must not hold an empty string")
        for token_id, bias in self.logit_bias.items():
            if not -100 <= bias <= 100:
                raise InvalidParameterError(
                    f"logit_bias of {token_id} is {bias!r}; it must be from -100 to 100", "logit_bias"
                )
        self._check_schedule()
        self._check_parallel_rule()
        self._check_editing()
        self._check_cache()

    @classmethod
    def with_preset(
        cls, preset: Preset, *, defaults: Mapping[str, Any] | None = None, **settings: Any
    ) -> "GenerationParams":
        """Return the settings of a preset; `settings` take precedence.

        Steps, a schedule, random remasking and another parallel rule exclude the preset's rule, so they drop it.

        Args:
            defaults: a model's settings, in place of the preset's, where no setting names one; those that stand against
                others are left out.

        Raises:
            InvalidParameterError: no such preset, or a setting that breaks a rule.
        """
        defaults = defaults or {}
        bundle = preset_settings(preset, settings)
        # A model with an exact cache needs no approximate one.
        named = {name: value for name, value in bundle.items() if name in settings or name not in defaults}
        return cls(**{**_fitting(defaults, named), **named})

    def altered(self, preset: Preset | None = None, **settings: Any) -> "GenerationParams":
        """Return these settings with those of a preset and `settings` in place of some, for the rest of a run.

        What the new settings exclude is dropped: a parallel rule beside steps, a schedule, random remasking or another
        rule, and the other way round; several active blocks without a rule, the refresh interval without a cache, and
        beside a preset rule, cache and suffix window. The number of steps is not kept: it was that of the whole run.

        Raises:
            InvalidParameterError: no such preset, or a setting that breaks a rule.
        """
        dropped: dict[str, Any] = {"steps": None}
        if preset is not None:
            bundle = preset_settings(preset, {"method": self.method, **settings})
            approximations = {"cache": "none", "suffix_window": None}
            if self.cache == EXACT:
                bundle = {
                    name: value for name, value in bundle.items() if name in settings or name not in approximations
                }
                approximations = {}
            settings = {**approximations, **bundle}
        if preset is not None or _excludes_rule(settings):
            dropped |= dict.fromkeys(get_args(ParallelRule))
            if not _names_rule(settings):
                dropped |= {"active_blocks": 1, "min_transfer": None, "editing_threshold": None, "max_post_steps": None}
        if _names_rule(settings):
            dropped |= {"steps_per_block": None, "schedule": None, "eps": None}
        if settings.get("steps") is not None:
            dropped["steps_per_block"] = None
        if settings.get("schedule") not in (None, TIMESTEP):
            dropped["eps"] = None
        is_chosen_by_time = _names_rule(settings) or settings.get("schedule") not in (None, TIMESTEP)
        if self.remasking == ORIGIN and is_chosen_by_time:
            dropped["remasking"] = "low_confidence"
        if "editing_threshold" in settings:
            dropped |= {"steps_per_block": None, "schedule": None, "eps": None, "max_post_steps": None}
        if settings.get("cache") == "none":
            dropped["cache_refresh_interval"] = None
        return replace(self, **{**dropped, **settings})

    @property
    def parallel_rule(self) -> tuple[str, float] | None:
        """The parallel rule that applies and its value; None for a fixed schedule."""
        given = ((name, getattr(self, name)) for name in get_args(ParallelRule))
        return next(((name, value) for name, value in given if value is not None), None)

    @property
    def hides_later_blocks(self) -> bool:
        """Whether the blocks after the active ones are not yet on the canvas."""
        return self.method in APPENDING

    @property
    def effective_block_length(self) -> int:
        """The block length after defaults and clamping."""
        if self.method == FIXED_LENGTH or (self.block_length is None and self.schedule == TIMESTEP):
            return self.gen_length
        return min(self.block_length or DEFAULT_BLOCK_LENGTH, self.gen_length)

    def _check_schedule(self) -> None:
        per_block, is_timestep = self.steps_per_block, self.schedule in (None, TIMESTEP)
        self._require("steps_per_block", per_block is None or per_block >= 1, "must be at least 1")
        self._require("steps_per_block", per_block is None or self.steps is None, "must be absent beside steps")
        names = get_args(ScheduleName)
        self._require("schedule", self.schedule in (None, *names), f"must be one of {', '.join(names)}")
        self._require("eps", self.eps is None or 0 < self.eps < 1, "must be above 0 and below 1")
        self._require("eps", self.eps is None or is_timestep, f"must be absent without the schedule {TIMESTEP}")
        self._require("remasking", self.remasking != ORIGIN or is_timestep, f"needs the schedule {TIMESTEP}")
        if self.schedule == TIMESTEP:
            most = max(MOST_STEPS_IN_TIME, self.gen_length)
            for name in ("steps", "steps_per_block"):
                is_bounded = (getattr(self, name) or 1) <= most
                self._require(name, is_bounded, f"must be at most {most} under the schedule {TIMESTEP}")
        self._require("remasking_temperature", 0 <= self.remasking_temperature <= 1e6, "must be from 0 to 1000000")
        self._require(
            "remasking_temperature",
            self.remasking not in RANDOM_REMASKING or self.remasking_temperature == 0,
            f"must be 0 beside remasking {self.remasking}, which is random already",
        )

    def _check_parallel_rule(self) -> None:
        threshold, factor, bound = self.confidence_threshold, self.confidence_factor, self.entropy_bound
        entropy = self.entropy_threshold
        self._require("confidence_threshold", threshold is None or 0 < threshold <= 1, "must be above 0 and at most 1")
        self._require("confidence_factor", factor is None or 0 < factor <= 1e6, "must be above 0 and at most 1000000")
        self._require("entropy_bound", bound is None or 0 <= bound <= 1e6, "must be from 0 to 1000000")
        self._require("entropy_threshold", entropy is None or 0 <= entropy <= 1e6, "must be from 0 to 1000000")
        self._require("active_blocks", self.active_blocks >= 1, "must be at least 1")
        is_floor_free = self.steps is None and self.steps_per_block is None
        self._require("min_transfer", self.min_transfer is None or self.min_transfer >= 1, "must be at least 1")
        self._require("min_transfer", self.min_transfer is None or is_floor_free, "must be absent beside steps")
        if self.parallel_rule is None:
            self._require("active_blocks", self.active_blocks == 1, "must be 1 without a parallel rule")
            return
        rule, _ = self.parallel_rule
        for other in get_args(ParallelRule):
            self._require(other, other == rule or getattr(self, other) is None, f"must be absent beside {rule}")
        for name in ("steps", "schedule", "eps"):
            is_absent = getattr(self, name) is None
            self._require(name, is_absent, f"must be absent: under {rule} the steps follow from the rule")
        self._require("remasking", self.remasking not in RANDOM_REMASKING, f"must not be random under {rule}")

    def _check_editing(self) -> None:
        threshold, post_steps = self.editing_threshold, self.max_post_steps
        self._require("editing_threshold", threshold is None or 0 <= threshold <= 1, "must be from 0 to 1")
        is_bounded = post_steps is None or 0 <= post_steps <= MOST_POST_STEPS
        self._require("max_post_steps", is_bounded, f"must be from 0 to {MOST_POST_STEPS}")
        if threshold is None:
            self._require("max_post_steps", post_steps is None, "must be absent without editing_threshold")
            return
        for name in ("steps", "steps_per_block", "schedule"):
            self._require(name, getattr(self, name) is None, "must be absent beside editing_threshold")
        self._require("active_blocks", self.active_blocks == 1, "must be 1 beside editing_threshold")

    def _check_cache(self) -> None:
        self._require("cache", self.cache in get_args(Cache), f"must be one of {', '.join(get_args(Cache))}")
        interval = self.cache_refresh_interval
        self._require("cache_refresh_interval", interval is None or interval >= 1, "must be at least 1")
        self._require(
            "cache_refresh_interval", interval is None or self.cache != "none", "must be absent without a cache"
        )
        is_refreshed = interval is None or self.cache != EXACT
        self._require("cache_refresh_interval", is_refreshed, f"must be absent beside cache {EXACT}, which needs none")
        window = self.suffix_window
        self._require("suffix_window", window is None or window >= 0, "must be at least 0")
        self._require(
            "suffix_window",
            window is None or not self.hides_later_blocks,
            f"must be absent under method {self.method}, which sees nothing right of the block",
        )

    def _require(self, name: str, is_met: bool, rule: str) -> None:
        if not is_met:
            raise InvalidParameterError(f"{name} is {getattr(self, name)!r}; it {rule}", name)


def preset_settings(preset: Preset, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a preset, in which `settings` take precedence."""
    if preset not in PRESETS:
        raise InvalidParameterError(f"preset is {preset!r}; it must be one of {', '.join(PRESETS)}", "preset")
    excluded: set[str] = set()
    if _excludes_rule(settings):
        excluded.update(get_args(ParallelRule))
        if not _names_rule(settings):
            excluded.add("active_blocks")
    if settings.get("cache") == "none":
        excluded.add("cache_refresh_interval")
    if settings.get("method") in APPENDING:
        excluded.add("suffix_window")
    return {name: value for name, value in PRESETS[preset].items() if name not in excluded} | dict(settings)


def _fitting(defaults: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults that may stand beside the settings."""
    fitting = dict(defaults)
    is_ruled = _names_rule(settings)
    is_timed = not is_ruled and settings.get("schedule") in (None, TIMESTEP)
    if not is_timed:
        fitting.pop("eps", None)
    excluded = RANDOM_REMASKING if is_ruled else () if is_timed else (ORIGIN,)
    if fitting.get("remasking") in excluded:
        del fitting["remasking"]
    if {**fitting, **settings}.get("remasking") in RANDOM_REMASKING:
        fitting.pop("remasking_temperature", None)
    return fitting


def _excludes_rule(settings: Mapping[str, Any]) -> bool:
    """Whether settings exclude a parallel rule, or name one, which excludes the others."""
    names_steps = any(settings.get(name) is not None for name in ("steps", "steps_per_block", "schedule"))
    return _names_rule(settings) or names_steps or settings.get("remasking") in RANDOM_REMASKING


def _names_rule(settings: Mapping[str, Any]) -> bool:
    return any(settings.get(name) is not None for name in get_args(ParallelRule))
