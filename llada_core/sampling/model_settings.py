"""A request's settings as one model has them: defaults are its published sampler's, and a setting that it lacks is
refused by name.
"""

from dataclasses import replace
from reprlib import repr as short

from llada_core.errors import InvalidParameterError
from llada_core.model.shape import ModelShape
from llada_core.sampling.params import (
    DEFAULT_EPS,
    DEFAULT_POST_STEPS,
    EXACT,
    FAMILY_SETTINGS,
    FIXED_LENGTH,
    RANDOM_REMASKING,
    SEQUENTIAL,
    TIMESTEP,
    GenerationParams,
)

# The longest blocks of published models have 64 positions.
MOST_IN_BLOCK = 256


def with_schedule(params: GenerationParams, shape: ModelShape) -> GenerationParams:
    """Return settings that name the schedule or a parallel rule.

    Raises:
        InvalidParameterError: a setting that needs another schedule than the model's own.
    """
    sampler, is_edited = shape.sampler, params.editing_threshold is not None
    # Editing and a floor go with a rule, whatever the order.
    needs_rule = params.parallel_rule is None and (is_edited or params.min_transfer is not None)
    if sampler.confidence_threshold is not None and (needs_rule or not _names_steps(params)):
        params = replace(
            params,
            confidence_threshold=sampler.confidence_threshold,
            steps_per_block=None if params.min_transfer or is_edited else sampler.steps_per_block,
        )
    if is_edited:
        post_steps = DEFAULT_POST_STEPS if params.max_post_steps is None else params.max_post_steps
        params = replace(params, min_transfer=params.min_transfer or 1, max_post_steps=post_steps)
    if params.parallel_rule is not None:
        return params
    schedule = params.schedule or sampler.schedule
    return replace(params, schedule=schedule, eps=params.eps or (DEFAULT_EPS if schedule == TIMESTEP else None))


def block_length(params: GenerationParams, shape: ModelShape) -> int:
    """Return the positions of a block: clamped to the response, unless attention goes by blocks too.

    The last block of such a response is denoised as a whole, so its length is bounded (`require_known`).
    """
    if shape.block_length is None:
        return params.effective_block_length
    return params.block_length or shape.block_length


def require_known(params: GenerationParams, shape: ModelShape) -> None:
    """Check that the model's sampler knows every setting.

    Raises:
        InvalidParameterError: names field, value and model.
    """
    family = shape.sampler.family
    for name in FAMILY_SETTINGS:
        value = getattr(params, name)
        is_given = value is not None and value is not False
        if is_given and name not in shape.sampler.settings:
            raise InvalidParameterError(
                f"{name} is {short(value)}; it must be absent: the sampler of {family} does not know it", name
            )
    if shape.block_length is not None:
        _require_block_causal(params, family)
    elif params.cache == EXACT:
        raise InvalidParameterError(
            f"cache is {EXACT!r}; it must be another: {family} sees later positions, so no cache is exact", "cache"
        )
    elif params.parallel_rule is not None and params.steps_per_block is not None:
        raise InvalidParameterError(
            f"steps_per_block is {params.steps_per_block}; it must be absent: the steps of {family} follow from "
            f"{params.parallel_rule[0]}",
            "steps_per_block",
        )


def _require_block_causal(params: GenerationParams, family: str) -> None:
    if params.block_length is not None and params.block_length > MOST_IN_BLOCK:
        raise InvalidParameterError(
            f"block_length is {params.block_length}; it must be at most {MOST_IN_BLOCK}: {family} denoises the last "
            "block as a whole, however short the response",
            "block_length",
        )
    unknown = {
        "suffix_window": params.suffix_window,
        "method": params.method if params.method == FIXED_LENGTH else None,
    }
    for field, value in unknown.items():
        if value is not None:
            raise InvalidParameterError(
                f"{field} is {value!r}; it must be absent: {family} attends block by block", field
            )
    if params.cache not in ("none", EXACT):
        raise InvalidParameterError(
            f"cache is {params.cache!r}; it must be none or {EXACT}: {family} attends block by block", "cache"
        )


def _names_steps(params: GenerationParams) -> bool:
    """Whether settings say how many tokens a step commits."""
    is_ordered = params.remasking in (*RANDOM_REMASKING, SEQUENTIAL)
    numbers = (params.steps, params.steps_per_block, params.schedule, params.parallel_rule)
    return is_ordered or any(value is not None for value in numbers)
