"""Prepare canvases: check a request's ids and settings against the model, and lay out prompt, masks and schedule."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np

from llada_core.errors import InvalidParameterError
from llada_core.model.interface import MaskPredictor
from llada_core.model.shape import ModelShape
from llada_core.sampling.canvas import Canvas, Layout
from llada_core.sampling.constraints.constraint import Constraint
from llada_core.sampling.constraints.progress import Progress
from llada_core.sampling.events import Reporting
from llada_core.sampling.frame import Frame
from llada_core.sampling.model_settings import block_length, require_known, with_schedule
from llada_core.sampling.params import GenerationParams
from llada_core.sampling.schedule import plan_blocks, share_steps
from llada_core.sampling.text_end import TextEnd
from llada_core.text.final_text import FinalText
from llada_core.text.special_tokens import SpecialTokens
from llada_core.text.tokenizer import Tokenizer

_PLAIN = Reporting()
_MASK_HINT = "; write gaps with a suffix or as an infilling canvas"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The ids that a model reads and writes, their special ones, and the tokenizer that turns them into text."""

    shape: ModelShape
    special_tokens: SpecialTokens
    tokenizer: Tokenizer | None = None

    @classmethod
    def of(cls, model: MaskPredictor, tokenizer: Tokenizer | None = None) -> "Vocabulary":
        return cls(model.shape, model.special_tokens, tokenizer)

    def require_tokens(self, ids: Collection[int], field: str, hint: str = "") -> None:
        """Check that `ids` are tokens of the vocabulary, and none of them the mask.

        Args:
            field: where the user gave them.
            hint: follows the error's rule where a mask is found.

        Raises:
            InvalidParameterError: names the field and the id.
        """
        self.special_tokens.require_no_mask(ids, field, hint)
        self.shape.require_token_ids(ids, field)


@dataclass(frozen=True, slots=True)
class Gap:
    """`length` masked positions among the segments of an infilling canvas."""

    length: int


def prepare_response(
    prompt: Sequence[int],
    params: GenerationParams,
    vocabulary: Vocabulary,
    *,
    suffix: Sequence[int] = (),
    pinned: Mapping[int, Sequence[int]] | None = None,
    constraint: Constraint | None = None,
    reporting: Reporting = _PLAIN,
) -> Canvas:
    """Prepare a response of `params.gen_length` masks after `prompt`: `prepare_responses` for a single one."""
    (canvas,) = prepare_responses(
        prompt,
        params,
        vocabulary,
        seeds=(params.seed,),
        suffix=suffix,
        pinned=pinned,
        constraint=constraint,
        reporting=reporting,
    )
    return canvas


def prepare_responses(
    prompt: Sequence[int],
    params: GenerationParams,
    vocabulary: Vocabulary,
    *,
    seeds: Sequence[int],
    suffix: Sequence[int] = (),
    pinned: Mapping[int, Sequence[int]] | None = None,
    constraint: Constraint | None = None,
    reporting: Reporting = _PLAIN,
) -> list[Canvas]:
    """Prepare responses of `params.gen_length` masks after `prompt` that differ only in their seeds.

    Args:
        seeds: one for each response, in place of that of `params`.
        suffix: ids that follow the response, which is then a gap: EOS, EoT and mask are never written into it.
        pinned: response position → ids fixed from that position on.
        constraint: the texts that the response may be; compiled for this vocabulary.

    Raises:
        InvalidParameterError: an id out of range or the mask id in the prompt; pinned tokens that overlap or leave the
            response; fewer steps than blocks; a canvas longer than the model's positions; stop strings without a
            tokenizer; a suffix beside a method that does not see it; a constraint that does not fit the length, the
            pinned tokens or a setting.
    """
    if not prompt:
        raise InvalidParameterError("prompt has 0 tokens; it must have at least 1", "prompt")
    vocabulary.require_tokens(prompt, "prompt", _MASK_HINT)
    require_settings(params, vocabulary, is_infilling=False)
    if suffix:
        vocabulary.shape.require_full_attention("a suffix", "suffix")
        _refuse_appending(params, "with a suffix")
    vocabulary.require_tokens(suffix, "suffix")
    _require_positions(len(prompt) + params.gen_length + len(suffix), vocabulary, "gen_length")
    response = _masks(params.gen_length, vocabulary)
    for position, ids in sorted((pinned or {}).items()):
        vocabulary.require_tokens(ids, "pinned")
        _pin(response, position, ids, vocabulary.special_tokens.mask_id)
    if constraint is not None:
        if suffix:
            raise InvalidParameterError(
                f"suffix is {len(suffix)} tokens long; it must be absent where the answer is constrained", "suffix"
            )
        require_constrainable(params, constraint, vocabulary)
    return _canvases(
        (prompt, response, suffix), params, vocabulary, seeds=seeds, constraint=constraint, reporting=reporting
    )


def prepare_infilling(
    segments: Iterable[Sequence[int] | Gap],
    params: GenerationParams,
    vocabulary: Vocabulary,
    *,
    reporting: Reporting = _PLAIN,
) -> Canvas:
    """Prepare a canvas of fixed segments and gaps; blocks are cut over the whole of it.

    `params.gen_length` is replaced by the canvas's length. EOS, EoT and mask are never written into a gap.

    Raises:
        InvalidParameterError: no gap, an empty one, an id out of range or the mask id in a segment; a canvas longer
            than the model's positions; stop strings, stop ids or a method that an infilling canvas cannot have.
    """
    vocabulary.shape.require_full_attention("an infilling canvas", "canvas")
    parts = [_part(segment, vocabulary) for segment in segments]
    response = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
    if not (response == vocabulary.special_tokens.mask_id).any():
        raise InvalidParameterError('canvas has no gap; it must have at least one {"mask": n}', "canvas")
    _require_positions(len(response), vocabulary, "canvas")
    require_settings(params, vocabulary, is_infilling=True)
    _refuse_appending(params, "on an infilling canvas")
    params = replace(params, gen_length=len(response))
    (canvas,) = _canvases(([], response, []), params, vocabulary, seeds=(params.seed,), reporting=reporting)
    return canvas


def _canvases(
    parts: tuple[Sequence[int], np.ndarray, Sequence[int]],
    params: GenerationParams,
    vocabulary: Vocabulary,
    *,
    seeds: Sequence[int],
    constraint: Constraint | None = None,
    reporting: Reporting,
) -> list[Canvas]:
    """Lay out one canvas for each of `seeds`; they share whatever a canvas never changes.

    Args:
        parts: prompt, response and suffix. The response may hold tokens anywhere.
    """
    prompt, response, suffix = parts
    special_tokens = vocabulary.special_tokens
    is_infilling = not prompt or len(suffix) > 0
    params, overhang = _laid_out(params, vocabulary, len(prompt) + len(response), is_constrained=constraint is not None)
    denoised = np.concatenate((response, _masks(overhang, vocabulary)))
    tokens = np.concatenate((np.array(prompt, dtype=np.int64), denoised, np.array(suffix, dtype=np.int64)))
    is_masked = denoised == special_tokens.mask_id
    banned_ids = {special_tokens.mask_id} | (special_tokens.end_ids if is_infilling else set())
    if params.parallel_rule is None and params.steps_per_block is None:
        default_steps = len(response) if prompt and not overhang else int(is_masked.sum())
        params = replace(params, steps=params.steps or default_steps)
    layout = Layout(
        prompt_length=len(prompt),
        response_length=len(response),
        fixed_L=tokens != special_tokens.mask_id,
        special_tokens=special_tokens,
        banned_ids=tuple(sorted(banned_ids)),
        end_ids=end_ids_of(params, special_tokens, is_infilling=is_infilling),
        predicts_next=vocabulary.shape.predicts_next,
        block_length=None if vocabulary.shape.block_length is None else params.block_length,
        overhang=overhang,
    )
    shares = share_steps(is_masked, params, num_before=layout.num_before)
    start = Frame(tokens, 0, plan_blocks(is_masked, params, shares, num_before=layout.num_before), shares)
    progress = None if constraint is None else progress_at(start, constraint, layout)
    return [
        canvas_at(start, replace(params, seed=seed), layout, vocabulary, progress=copy(progress), reporting=reporting)
        for seed in seeds
    ]


def _laid_out(
    params: GenerationParams, vocabulary: Vocabulary, length: int, *, is_constrained: bool
) -> tuple[GenerationParams, int]:
    """Return settings that name the schedule and the block length, and the canvas's overhang (see `Layout`).

    Args:
        length: the positions of prompt and response.
        is_constrained: the response must be an answer of its length, so its last block ends with it.
    """
    shape = vocabulary.shape
    params = with_schedule(params, shape)
    size = block_length(params, shape)
    has_overhang = shape.block_length is not None and not is_constrained
    overhang = min(-length % size, shape.max_sequence_length - length) if has_overhang else 0
    return replace(params, block_length=size), overhang


def canvas_at(
    start: Frame,
    params: GenerationParams,
    layout: Layout,
    vocabulary: Vocabulary,
    *,
    progress: Progress | None,
    reporting: Reporting,
) -> Canvas:
    """Build the canvas whose first step follows `start`.

    Args:
        params: with every default resolved, and checked by `require_settings`.
        progress: that of a constraint at `start`; see `progress_at`. It belongs to the canvas.

    Raises:
        InvalidParameterError: stop strings without a tokenizer.
    """
    text_end = TextEnd(
        mask_id=layout.mask_id,
        end_ids=layout.end_ids,
        stop_text=_stop_text(params, vocabulary.tokenizer),
        is_always_complete=progress is not None,
    )
    return Canvas(start, params, layout, text_end=text_end, reporting=reporting, progress=progress)


def progress_at(start: Frame, constraint: Constraint, layout: Layout) -> Progress:
    """Return the progress through a constraint at a frame.

    Raises:
        InvalidParameterError: no answer can have the frame's tokens.
    """
    return Progress(constraint, start.tokens[layout.response], layout.mask_id, [block.stop for block in start.blocks])


def require_settings(params: GenerationParams, vocabulary: Vocabulary, *, is_infilling: bool) -> None:
    """Check settings against the model.

    Args:
        is_infilling: for a canvas of segments and gaps, whose text has no end to be found.

    Raises:
        InvalidParameterError: ids out of range; settings about the text's end on an infilling canvas; a setting that
            this model's sampler does not know.
    """
    require_known(params, vocabulary.shape)
    if params.end_thinking is not None:
        vocabulary.require_tokens(params.end_thinking.token_ids, "end_thinking")
    vocabulary.shape.require_token_ids(params.logit_bias, "logit_bias")
    if not is_infilling:
        vocabulary.require_tokens(params.stop_token_ids, "stop_token_ids")
        return
    unsupported = {
        "stop": list(params.stop),
        "stop_token_ids": sorted(params.stop_token_ids),
        "min_tokens": params.min_tokens,
        "end_thinking": params.end_thinking,
    }
    for field, value in unsupported.items():
        if value:
            raise InvalidParameterError(f"{field} is {value}; it must be absent on an infilling canvas", field)


def end_ids_of(params: GenerationParams, special_tokens: SpecialTokens, *, is_infilling: bool) -> frozenset[int]:
    """Return the ids that end the text."""
    is_ended_by_eos = not (params.ignore_eos or is_infilling)
    return params.stop_token_ids | (special_tokens.end_ids if is_ended_by_eos else frozenset())


def _masks(length: int, vocabulary: Vocabulary) -> np.ndarray:
    return np.full(length, vocabulary.special_tokens.mask_id, dtype=np.int64)


def _part(segment: Sequence[int] | Gap, vocabulary: Vocabulary) -> np.ndarray:
    """Return the ids of one part of an infilling canvas."""
    if not isinstance(segment, Gap):
        vocabulary.require_tokens(segment, "canvas", '; write gaps as {"mask": n}')
        return np.array(segment, dtype=np.int64)
    if segment.length < 1:
        raise InvalidParameterError(f"canvas: mask is {segment.length}; it must be at least 1", "canvas")
    return _masks(segment.length, vocabulary)


def _stop_text(params: GenerationParams, tokenizer: Tokenizer | None) -> FinalText | None:
    if not params.stop:
        return None
    if tokenizer is None:
        raise InvalidParameterError(f"stop is {list(params.stop)}; without a tokenizer it must be absent", "stop")
    return FinalText(tokenizer, params.stop)


def _refuse_appending(params: GenerationParams, where: str) -> None:
    if params.hides_later_blocks:
        raise InvalidParameterError(
            f"method is {params.method!r}; {where} it must be another: this one does not see the tokens that follow",
            "method",
        )


def require_constrainable(params: GenerationParams, constraint: Constraint, vocabulary: Vocabulary) -> None:
    """Check a constraint against the model and the settings.

    Raises:
        InvalidParameterError: it is for another vocabulary, does not fit the length, or is given beside a setting about
            the text's end.
    """
    if len(constraint.classes_V) != vocabulary.shape.vocab_size:
        raise InvalidParameterError(
            f"constraint is for {len(constraint.classes_V)} token ids; this model has {vocabulary.shape.vocab_size}",
            "constraint",
        )
    unsupported = {
        "stop": list(params.stop),
        "stop_token_ids": sorted(params.stop_token_ids),
        "editing_threshold": None if params.editing_threshold is None else str(params.editing_threshold),
        "ignore_eos": params.ignore_eos,
        "logits_eos_inf": params.logits_eos_inf,
    }
    for field, value in unsupported.items():
        if value:
            raise InvalidParameterError(f"{field} is {value}; it must be absent where the answer is constrained", field)
    if constraint.shortest > params.gen_length:
        raise InvalidParameterError(
            f"gen_length is {params.gen_length}; the shortest matching answer takes {constraint.shortest} tokens",
            "gen_length",
        )


def _require_positions(length: int, vocabulary: Vocabulary, field: str) -> None:
    longest = vocabulary.shape.max_sequence_length
    if length > longest:
        raise InvalidParameterError(
            f"{field}: the canvas has {length} positions; the model has at most {longest}", field
        )


def _pin(response: np.ndarray, position: int, ids: Sequence[int], mask_id: int) -> None:
    stop = position + len(ids)
    if not ids:
        raise InvalidParameterError(
            f"pinned: the one at position {position} has 0 tokens; it must have at least 1", "pinned"
        )
    if position < 0 or stop > len(response):
        raise InvalidParameterError(
            f"pinned: {len(ids)} tokens at position {position} end at {stop}; "
            f"they must lie within gen_length ({len(response)})",
            "pinned",
        )
    if (response[position:stop] != mask_id).any():
        raise InvalidParameterError(f"pinned: the one at position {position} overlaps an earlier one", "pinned")
    response[position:stop] = ids
