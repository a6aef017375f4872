"""The offline loop: the same steps the server runs, over a list of prompts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from llada_core.errors import InvalidParameterError
from llada_core.model.interface import MaskPredictor
from llada_core.sampling.canvas import Canvas
from llada_core.sampling.events import DenoisingStep
from llada_core.sampling.params import GenerationParams
from llada_core.sampling.prepare import Vocabulary, prepare_response
from llada_core.sampling.sampler import Sampler
from llada_core.text.final_text import FinalText
from llada_core.text.tokenizer import Message, Tokenizer

Prompt = str | Sequence[int] | Sequence[Message] | Sequence[Mapping[str, str]]

# Canvases denoised together; a longer list is denoised in parts.
_MAX_BATCH_SIZE = 32


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """A finished generation.

    Attributes:
        token_ids: the ids of the text; under `ignore_eos`, of the whole response.
        finish_reason: `stop` or `length`.
        text: None without a tokenizer.
    """

    token_ids: list[int]
    finish_reason: str
    denoising_steps: int
    forward_passes: int
    text: str | None = None


def denoise(
    model: MaskPredictor, prompt: Prompt, params: GenerationParams, *, tokenizer: Tokenizer | None = None
) -> Iterator[DenoisingStep]:
    """Denoise one prompt and yield its steps as they happen: the events that the server streams."""
    canvas = _canvas(model, prompt, params, tokenizer)
    sampler = Sampler(model)
    while canvas.finish_reason is None:
        yield sampler.step([canvas])[0]


def generate(
    model: MaskPredictor,
    prompts: Sequence[Prompt],
    params: GenerationParams | Sequence[GenerationParams],
    *,
    tokenizer: Tokenizer | None = None,
) -> list[GenerationResult]:
    """Generate a response to every prompt; results in the order of the prompts.

    Args:
        prompts: token ids, or with a tokenizer text or chat messages (`Message`, or mappings of role and content).
        params: one for all, or one per prompt.
    """
    all_params = [params] * len(prompts) if isinstance(params, GenerationParams) else list(params)
    if len(all_params) != len(prompts):
        raise InvalidParameterError(
            f"params has {len(all_params)} entries; it must have one per prompt, {len(prompts)}"
        )
    canvases = [_canvas(model, *pair, tokenizer) for pair in zip(prompts, all_params, strict=True)]
    sampler = Sampler(model)
    waiting = [canvas for canvas in canvases if canvas.finish_reason is None]
    while waiting:
        sampler.step(waiting[:_MAX_BATCH_SIZE])
        waiting = [canvas for canvas in waiting if canvas.finish_reason is None]
    return [_result(canvas, tokenizer) for canvas in canvases]


def _canvas(model: MaskPredictor, prompt: Prompt, params: GenerationParams, tokenizer: Tokenizer | None) -> Canvas:
    return prepare_response(_encode(prompt, tokenizer), params, Vocabulary.of(model, tokenizer))


def _encode(prompt: Prompt, tokenizer: Tokenizer | None) -> list[int]:
    is_text = isinstance(prompt, str)
    if not is_text and not (len(prompt) and isinstance(prompt[0], Message | Mapping)):
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


def _result(canvas: Canvas, tokenizer: Tokenizer | None) -> GenerationResult:
    assert canvas.finish_reason is not None
    text = None
    if tokenizer is not None:
        final = FinalText(tokenizer, canvas.params.stop)
        final.push(canvas.response[: canvas.text_end.final_length])
        final.flush()
        text = final.text
    return GenerationResult(canvas.text_ids, canvas.finish_reason, canvas.step, canvas.forward_passes, text)
