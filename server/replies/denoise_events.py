"""The events of `/v1/denoise`: `start`, a `step` for each denoising step, `done` or `error` (docs/api.md)."""

from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import asdict, dataclass
from typing import Any

from sse_starlette import ServerSentEvent

from llada_core.sampling.events import Change
from llada_core.sampling.prepare import Vocabulary
from llada_core.text.special_tokens import EOS_TOKEN, EOT_TOKEN, MASK_TOKEN, SpecialTokens
from llada_core.text.thinking import ThinkingForm, ThinkingReader
from llada_core.text.tokenizer import Tokenizer
from server.engine.mailbox import TimedStep
from server.http.sse import as_json, event
from server.replies.generation import Generation
from server.replies.logprobs import log_of
from server.replies.parking import DenoisingStream, EventName, Parking
from server.replies.running import Running
from server.replies.thinking import usage_with_thinking


@dataclass(frozen=True, slots=True)
class DenoiseReply:
    """One connection that reads a stream, the first or a later one."""

    stream: DenoisingStream
    running: Running
    parking: Parking
    vocabulary: Vocabulary

    async def events(self, *, first: int) -> AsyncGenerator[ServerSentEvent]:
        """The events from the id `first` on: first the past ones, then new ones as they happen."""
        for id_, (name, text) in enumerate(self.stream.events[first:], first):
            yield event(text, name=name, id_=id_)
        async with aclosing(self._new_events()) as events:
            async for name, data in events:
                yield self._recorded(name, data)

    def error_event(self, error: dict[str, Any]) -> ServerSentEvent:
        """The last event of a stream that failed."""
        return self._recorded("error", error)

    def release(self) -> None:
        """Take the generation out of the batch and keep the stream for a while."""
        # Pause before parking: a stream that another connection can claim must no longer be running.
        self.running.pause(self.stream.generation)
        self.parking.park(self.stream)

    def _recorded(self, name: EventName, data: dict[str, Any]) -> ServerSentEvent:
        text = as_json(data)
        # Replays omit predictions, whose size grows with the square of the length.
        is_whole = "predictions" not in data
        kept = text if is_whole else as_json({key: value for key, value in data.items() if key != "predictions"})
        self.stream.events.append((name, kept))
        return event(text, name=name, id_=len(self.stream.events) - 1)

    async def _new_events(self) -> AsyncGenerator[tuple[EventName, dict[str, Any]]]:
        """The events after those that the stream already has."""
        generation = self.stream.generation
        if self.stream.is_over:
            return
        if not self.stream.events:
            yield "start", self._start_object()
        async with aclosing(self.running.steps(generation)) as steps:
            async for timed, _ in steps:
                yield "step", step_object(timed, self.vocabulary.tokenizer)
        yield "done", _done_object(generation, self.stream.thinking)

    def _start_object(self) -> dict[str, Any]:
        envelope, generation = self.stream.envelope, self.stream.generation
        params, parent = generation.canvas.params, self.stream.parent
        data = {
            "id": envelope.id,
            "model": envelope.model,
            "created": envelope.created,
            "prompt_tokens": generation.canvas.layout.num_prompt_tokens,
            "gen_length": params.gen_length,
            "block_length": params.block_length,
            "block_offset": generation.canvas.layout.num_before or 0,
            "steps": None if params.parallel_rule else params.steps or generation.canvas.start.num_steps,
            "mask_token_id": self.vocabulary.special_tokens.mask_id,
            "special_tokens": special_token_names(self.vocabulary.special_tokens, self.vocabulary.tokenizer),
            "token_ids": list(generation.text.token_ids),
            "generation_params": generation.generation_params(),
        }
        if parent is not None:
            inherited = generation.text.changes_before(parent.step)
            # A block-causal model's last block reaches beyond the response.
            changes = [change for change in inherited if change.position < params.gen_length]
            data["parent"] = parent.as_object()
            data["changes"] = [change_object(change, self.vocabulary.tokenizer) for change in changes]
        return data


def special_token_names(special_tokens: SpecialTokens, tokenizer: Tokenizer | None) -> dict[str, str]:
    """The names of the mask, EOS and EoT by their ids: the tokenizer's or, where it has none, the published ones."""
    published = {
        special_tokens.mask_id: MASK_TOKEN,
        special_tokens.eos_id: EOS_TOKEN,
        special_tokens.eot_id: EOT_TOKEN,
    }
    return {
        str(token_id): (tokenizer.token_text(token_id) if tokenizer else "") or name
        for token_id, name in published.items()
        if token_id is not None
    }


def step_object(timed: TimedStep, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """The data of a `step` event."""
    step = timed.event
    data: dict[str, Any] = {
        "step": step.step,
        "block": step.block,
        "changes": [change_object(change, tokenizer) for change in step.changes],
        "masked": step.masked,
        "elapsed_ms": round(timed.elapsed_ms, 3),
    }
    if step.predictions is not None:
        data["predictions"] = [
            {**asdict(prediction), "text": token_text(prediction.token_id, tokenizer)}
            for prediction in step.predictions
        ]
    return data


def change_object(change: Change, tokenizer: Tokenizer | None) -> dict[str, Any]:
    """A change as events have it."""
    data: dict[str, Any] = {
        "op": change.op,
        "step": change.step,
        "position": change.position,
        "token_id": change.token_id,
        "text": token_text(change.token_id, tokenizer),
        "confidence": change.confidence,
    }
    if change.alternatives:
        data["top_logprobs"] = top_logprobs(change.alternatives, tokenizer)
    return data


def top_logprobs(alternatives: Iterable[tuple[int, float]], tokenizer: Tokenizer | None) -> list[dict[str, Any]]:
    """The most probable tokens at a position, from their probabilities."""
    return [
        {"token_id": token_id, "text": token_text(token_id, tokenizer), "logprob": log_of(probability)}
        for token_id, probability in alternatives
    ]


def token_text(token_id: int, tokenizer: Tokenizer | None) -> str:
    """The text of a token by itself; empty for special tokens."""
    return tokenizer.decode([token_id]) if tokenizer else ""


def _done_object(generation: Generation, thinking: ThinkingForm | None) -> dict[str, Any]:
    text = generation.text
    reader = ThinkingReader(thinking) if thinking else None
    apart = {}
    if reader is not None:
        said = reader.push(text.text, is_last=True).said
        apart = {"reasoning_content": reader.thinking, "content": said}
    return {
        "text": text.text,
        **apart,
        "finish_reason": text.finish_reason,
        "usage": usage_with_thinking(generation, reader).as_completion(),
        "token_ids": text.token_ids,
    }
