"""The offline loop: the same steps the server runs, over a list of prompts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from llada_core.errors import InvalidParameterError
from llada_core.model.interface import MaskPredictor
from llada_core.model.prefix_pool import PrefixPool
from llada_core.sampling.canvas import Canvas
from llada_core.sampling.constraints.constraint import Constraint
from llada_core.sampling.events import DenoisingStep
from llada_core.sampling.params import GenerationParams
from llada_core.sampling.prepare import Vocabulary, prepare_response
from llada_core.sampling.sampler import Sampler
from llada_core.sampling.shared_blocks import may_reuse
from llada_core.text.final_text import FinalText
from llada_core.text.tokenizer import Message, Tokenizer

Prompt = str | Sequence[int] | Sequence[Message] | Sequence[Mapping[str, str]]

# Canvases denoised together; a longer list is denoised in parts.
MAX_BATCH_SIZE = 32


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The response of a finished generation, position by position, as `llada-train distill` learns from it.

    Attributes:
        token_ids: masks remain where the text had ended before anything was written.
        commit_steps: the step that committed each token; None at those masks.
    """

    token_ids: list[int]
    commit_steps: list[int | None]


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """A finished generation.

    Attributes:
        token_ids: the ids of the text; under `ignore_eos`, of the whole response.
        finish_reason: `stop` or `length`.
        forward_passes: those that proposed tokens.
        cache_passes: those that only wrote keys and values, under cache `exact`.
        trajectory: the whole response, and the step that wrote each token.
        text: None without a tokenizer.
    """

    token_ids: list[int]
    finish_reason: str
    denoising_steps: int
    forward_passes: int
    trajectory: Trajectory
    text: str | None = None
    cache_passes: int = 0


def denoise(
    model: MaskPredictor,
    prompt: Prompt,
    params: GenerationParams | None = None,
    *,
    tokenizer: Tokenizer | None = None,
    constraint: Constraint | None = None,
    **settings: Any,
) -> Iterator[DenoisingStep]:
    """Denoise one prompt and yield its steps as they happen: the events that the server streams.

    Args:
        constraint: the texts that the answer may be, from `compile_constraint`.
        settings: fields of `GenerationParams`, `max_tokens` and `preset`, instead of `params`.
    """
    canvas = _canvas(model, prompt, _params_of(model, params, settings), tokenizer, constraint)
    sampler = Sampler(model)
    while canvas.finish_reason is None:
        yield sampler.step([canvas])[0]


def generate(
    model: MaskPredictor,
    prompts: Prompt | Sequence[Prompt],
    params: GenerationParams | Sequence[GenerationParams] | None = None,
    *,
    tokenizer: Tokenizer | None = None,
    constraint: Constraint | None = None,
    **settings: Any,
) -> list[GenerationResult]:
    """Generate a response to every prompt; results in the order of the prompts.

    Args:
        prompts: one prompt or a list of them: token ids or, with a tokenizer, text or chat messages (`Message`, or
            mappings of role and content).
        params: one for all, or one per prompt.
        constraint: the texts that the answers may be, from `compile_constraint`.
        settings: fields of `GenerationParams`, `max_tokens` and `preset`, instead of `params`; the others are the
            model's defaults.

    Raises:
        InvalidParameterError: a prompt or setting that breaks a rule; names field, value and rule.
    """
    all_prompts: Sequence[Prompt] = [prompts] if _is_one_prompt(prompts) else prompts  # type: ignore[assignment, list-item]
    if params is None or isinstance(params, GenerationParams):
        all_params = [_params_of(model, params, settings)] * len(all_prompts)
    else:
        all_params = [_params_of(model, one, settings) for one in params]
    if len(all_params) != len(all_prompts):
        raise InvalidParameterError(
            f"params has {len(all_params)} entries; it must have one per prompt, {len(all_prompts)}"
        )
    canvases = [_canvas(model, *pair, tokenizer, constraint) for pair in zip(all_prompts, all_params, strict=True)]
    cache_passes = finish(model, canvases)
    return [_result(canvas, tokenizer, passes) for canvas, passes in zip(canvases, cache_passes, strict=True)]


def finish(model: MaskPredictor, canvases: Sequence[Canvas], *, batch_size: int = MAX_BATCH_SIZE) -> list[int]:
    """Denoise canvases to their ends, at most `batch_size` at a time; return the `cache_passes` of each.

    Under the cache policy `exact`, blocks with which several canvases begin are computed once.
    """
    sampler = Sampler(model, _prefix_pool(model, canvases, batch_size))
    cache_passes = dict.fromkeys(canvases, 0)
    waiting = [canvas for canvas in canvases if canvas.finish_reason is None]
    while waiting:
        batch = waiting[:batch_size]
        for canvas, step in zip(batch, sampler.step(batch), strict=True):
            cache_passes[canvas] += step.cache_passes
        waiting = [canvas for canvas in waiting if canvas.finish_reason is None]
    return list(cache_passes.values())


def _prefix_pool(model: MaskPredictor, canvases: Sequence[Canvas], batch_size: int) -> PrefixPool | None:
    """Return a pool for what canvases share, with as much memory as the caches of a batch; None if they cannot."""
    sharing = [canvas for canvas in canvases if may_reuse(canvas)]
    if len(sharing) < 2:
        return None
    sizes = sorted(map(Sampler(model).cache_bytes, sharing))
    return PrefixPool(model, sum(sizes[-batch_size:]))


def text_of(canvas: Canvas, tokenizer: Tokenizer) -> str:
    """Return the text of a finished canvas."""
    final = FinalText(tokenizer, canvas.params.stop)
    final.push(canvas.response[: canvas.text_end.final_length])
    final.flush()
    return final.text


def _is_one_prompt(prompts: Any) -> bool:
    """Whether `prompts` is a text, a chat or token ids, and not a list of those."""
    return isinstance(prompts, str) or (len(prompts) > 0 and isinstance(prompts[0], Integral | Message | Mapping))


def _params_of(model: MaskPredictor, params: GenerationParams | None, settings: Mapping[str, Any]) -> GenerationParams:
    if params is not None:
        if settings:
            name = next(iter(settings))
            raise InvalidParameterError(f"{name} is {settings[name]!r} beside params; give either", name)
        return params
    fields = {"gen_length" if name == "max_tokens" else name: value for name, value in settings.items()}
    if len(fields) < len(settings):
        raise InvalidParameterError("max_tokens is given beside gen_length; give either", "max_tokens")
    known = GenerationParams.__dataclass_fields__.keys() | {"preset"}
    for name in fields:
        if name not in known:
            raise InvalidParameterError(f"{name} is no setting; known are max_tokens, {', '.join(sorted(known))}", name)
    return GenerationParams.with_preset(**{"preset": "exact", "defaults": model.shape.sampler.defaults, **fields})


def _canvas(
    model: MaskPredictor,
    prompt: Prompt,
    params: GenerationParams,
    tokenizer: Tokenizer | None,
    constraint: Constraint | None,
) -> Canvas:
    vocabulary = Vocabulary.of(model, tokenizer)
    return prepare_response(_encode(prompt, tokenizer), params, vocabulary, constraint=constraint)


def _encode(prompt: Prompt, tokenizer: Tokenizer | None) -> list[int]:
    is_text = isinstance(prompt, str)
    if not is_text and not (len(prompt) and isinstance(prompt[0], Message | Mapping)):
        for index, token_id in enumerate(prompt):
            if not isinstance(token_id, Integral):
                raise InvalidParameterError(
                    f"prompt[{index}] is {token_id!r}; a prompt is a text, messages or token ids, "
                    "and `generate` also takes a list of prompts",
                    "prompt",
                )
        return [int(token_id) for token_id in prompt]  # type: ignore[arg-type]
    if tokenizer is None:
        raise InvalidParameterError("prompt is text; without a tokenizer it must be token ids", "prompt")
    return tokenizer.encode(prompt) if is_text else tokenizer.encode_chat([_message(turn) for turn in prompt])  # type: ignore[arg-type]


def _message(turn: object) -> Message:
    match turn:
        case Message():
            return turn
        case {"role": str(role), "content": str(content), **rest} if not rest:
            return Message(role, content)
    raise InvalidParameterError(f"prompt holds {turn!r}; a message must have a role and a content, both text", "prompt")


def _result(canvas: Canvas, tokenizer: Tokenizer | None, cache_passes: int) -> GenerationResult:
    assert canvas.finish_reason is not None
    text = None if tokenizer is None else text_of(canvas, tokenizer)
    steps = zip(canvas.response, canvas.commit_steps[canvas.layout.response].tolist(), strict=True)
    trajectory = Trajectory(
        canvas.response, [None if token_id == canvas.layout.mask_id else step for token_id, step in steps]
    )
    return GenerationResult(
        canvas.text_ids, canvas.finish_reason, canvas.step, canvas.forward_passes, trajectory, text, cache_passes
    )
