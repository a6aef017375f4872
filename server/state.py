"""What the routes work with: one model, its tokenizer, the engine that runs it, and a request's way to the engine."""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict
from typing import Any, TypeVar

from fastapi import Request as HTTPRequest

from llada_core.errors import InvalidParameterError
from llada_core.model.interface import MaskPredictor
from llada_core.sampling.canvas import Canvas
from llada_core.sampling.events import DenoisingStep, Reporting
from llada_core.sampling.params import GenerationParams
from llada_core.sampling.prepare import Gap, Vocabulary, prepare_infilling, prepare_response
from llada_core.text.tokenizer import Tokenizer
from server.engine.engine import Engine
from server.engine.errors import EngineStoppedError
from server.engine.mailbox import TimedStep
from server.engine.metrics import Metrics
from server.engine.work import Work
from server.http.api_error import bad_request, model_not_found, shutting_down, timed_out
from server.replies.generation import Generation
from server.replies.parking import Parking
from server.replies.text_stream import TextStream
from server.schemas import ChatFields, ChatMessage, DiffusionFields, ScoreRequest
from server.settings import Settings

logger = logging.getLogger(__name__)

T = TypeVar("T")

DEFAULT_MAX_TOKENS = 128


class ServerState:
    """The one model of this process and everything that serves it."""

    def __init__(
        self, settings: Settings, model: MaskPredictor, tokenizer: Tokenizer | None, engine: Engine, metrics: Metrics
    ) -> None:
        self.settings = settings
        self.model = model
        self.shape = model.shape
        self.vocabulary = Vocabulary.of(model, tokenizer)
        self.special_tokens = model.special_tokens
        self.tokenizer = tokenizer
        self.engine = engine
        self.metrics = metrics
        self.created = int(time.time())
        self.is_draining = False
        self.parking = Parking()
        own_limit = self.shape.max_sequence_length
        self.max_model_len = settings.max_model_len or own_limit
        if self.max_model_len > own_limit:
            raise InvalidParameterError(
                f"--max-model-len is {self.max_model_len}; "
                f"it must be at most the model's max_sequence_length, {own_limit}"
            )

    def check_model(self, name: str | None) -> None:
        """404 for any model but the one that is served."""
        if name is not None and name != self.settings.model_name:
            raise model_not_found(name, self.settings.model_name)

    async def encode_prompt(self, prompt: str | list[int]) -> list[int]:
        """Ids of a prompt given as text or as ids."""
        if isinstance(prompt, list):
            return prompt
        return await self.encode_text(prompt)

    async def encode_text(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Ids of a text. Long ones take seconds: not on the event loop."""
        encode = self.required_tokenizer("prompt").encode
        return await asyncio.to_thread(encode, text, add_special_tokens=add_special_tokens)

    def text_of(self, prompt: str | list[int]) -> str:
        """A prompt as it is shown; of ids without a tokenizer nothing can be."""
        if isinstance(prompt, str):
            return prompt
        return self.tokenizer.decode(prompt) if self.tokenizer else ""

    async def encode_messages(self, messages: list[ChatMessage], fields: ChatFields) -> list[int]:
        """Ids of a conversation in LLaDA's chat template."""
        return await asyncio.to_thread(
            self.required_tokenizer("messages").encode_chat,
            [message.as_turn() for message in messages],
            add_generation_prompt=fields.add_generation_prompt,
            continue_final_message=fields.continue_final_message,
        )

    async def encode_segment(self, segment: str | list[int], field_name: str) -> list[int]:
        """Ids of a piece of a canvas: nothing is added to it, and nothing in it is special."""
        if isinstance(segment, list):
            return segment
        return await asyncio.to_thread(self.required_tokenizer(field_name).encode_plain, segment)

    def required_tokenizer(self, field_name: str) -> Tokenizer:
        """The tokenizer, without which `field_name` cannot be read."""
        if self.tokenizer is None:
            raise InvalidParameterError(
                f"{field_name} is text, and this model's folder has no tokenizer; send `prompt` as token ids",
                field_name,
            )
        return self.tokenizer

    def generation_length(self, body: DiffusionFields, prompt_length: int, suffix_length: int = 0) -> int:
        """Positions of the response: those asked for, or as many of the default as there is room for.

        Raises:
            APIError: there is no room.
        """
        room = self.max_model_len - prompt_length - suffix_length
        given = f"the prompt has {prompt_length} tokens{f' and the suffix {suffix_length}' if suffix_length else ''}"
        if room < 1:
            raise bad_request(
                f"{given}; max_model_len is {self.max_model_len} and must leave room for a token more",
                "prompt",
                "context_length_exceeded",
            )
        length = min(DEFAULT_MAX_TOKENS, room) if body.length is None else body.length
        if length > room:
            raise bad_request(
                f"{given}, and {body.length_name} is {length}; "
                f"together they must be at most max_model_len ({self.max_model_len})",
                body.length_name,
                "context_length_exceeded",
            )
        return length

    def canvas(
        self,
        body: DiffusionFields,
        prompt: list[int],
        *,
        seed: int | None = None,
        suffix: Sequence[int] = (),
        constraints: Mapping[int, Sequence[int]] | None = None,
        include_predictions: bool = False,
        num_alternatives: int = 0,
    ) -> Canvas:
        """A response of masks after `prompt`, as `body` asks for it.

        Args:
            seed: in place of the body's, which is drawn where it has none.
            suffix: what comes after the response.

        Raises:
            APIError, InvalidParameterError: the request breaks a rule.
        """
        self.vocabulary.require_tokens(prompt, "prompt", "; fill gaps with `suffix`, or with `canvas` on /v1/denoise")
        return prepare_response(
            prompt,
            _params(body, self.generation_length(body, len(prompt), len(suffix)), seed),
            self.vocabulary,
            suffix=suffix,
            constraints=constraints,
            reporting=Reporting(include_predictions, num_alternatives),
        )

    def infilling_canvas(
        self, body: DiffusionFields, segments: Sequence[Sequence[int] | Gap], *, include_predictions: bool
    ) -> Canvas:
        """Given segments and the gaps between them, as `body` asks for it.

        Raises:
            APIError, InvalidParameterError: the request breaks a rule.
        """
        length = sum(segment.length if isinstance(segment, Gap) else len(segment) for segment in segments)
        if length > self.max_model_len:
            raise bad_request(
                f"canvas has {length} positions; it must have at most max_model_len ({self.max_model_len})",
                "canvas",
                "context_length_exceeded",
            )
        return prepare_infilling(
            segments, _params(body, max(1, length)), self.vocabulary, reporting=Reporting(include_predictions)
        )

    def admit(self, body: DiffusionFields, canvases: Sequence[Canvas], *, id_prefix: str) -> list[Generation]:
        """Hand the canvases of one answer to the engine, all of them or none; they share an id.

        Raises:
            APIError: the server is shutting down.
            QueueFullError: too many wait already.
        """
        self._require_running()
        generation_id = self.new_id(body, id_prefix)
        texts = [TextStream(canvas, self.tokenizer) for canvas in canvases]  # before the model threads may touch them
        requests = self.engine.submit(canvases)
        return [Generation(generation_id, *parts) for parts in zip(requests, texts, strict=True)]

    def readmit(self, generation: Generation) -> None:
        """Hand a generation whose client came back to the engine again.

        Raises:
            APIError: the server is shutting down.
            QueueFullError: too many wait already.
        """
        self._require_running()
        self.engine.resubmit(generation.request)
        generation.resume()

    def require_room(self, num_requests: int) -> None:
        """
        Raises:
            QueueFullError: so many requests more would overfill the queue.
        """
        self.engine.require_room(num_requests)

    def start(self, parts: Generator[int, None, T]) -> Work[T]:
        """Hand a computation to the engine; it yields the tokens of its last part wherever others may have a turn.

        Raises:
            APIError: the server is shutting down.
            QueueFullError: too many are under way already.
        """
        self._require_running()
        return self.engine.start_work(parts)

    async def result(self, work: Work[T], *, started: float) -> T:
        """What a computation returns; cancelled, it goes no further. `started` is when its request began.

        Raises:
            APIError: 504 past the request timeout.
        """
        limit = self.settings.request_timeout
        try:
            async with asyncio.timeout(started + limit - time.monotonic()):
                return await work.result()
        except TimeoutError:
            raise timed_out(limit) from None
        finally:
            work.cancel()

    async def steps(self, generation: Generation) -> AsyncGenerator[tuple[TimedStep, str]]:
        """Each step with the text that it made final. Leaving early takes the request out of the batch.

        Raises:
            APIError: 504 past the request timeout.
        """
        limit = self.settings.request_timeout
        async with aclosing(self.engine.stream(generation.request)) as stream:
            while True:
                try:
                    # Not wait_for, which loses a cancellation that coincides with a step.
                    async with asyncio.timeout(generation.started + limit - time.monotonic()):
                        timed = await anext(stream)
                except StopAsyncIteration:
                    break
                except TimeoutError:
                    raise timed_out(limit) from None
                delta = generation.text.apply(timed.event)
                if generation.text.finish_reason is not None:
                    self._observe_finished(generation)
                yield timed, delta

    async def finish(self, generation: Generation) -> None:
        """Run a generation to its end; cancelled, or past its time limit, it leaves the batch."""
        try:
            async with aclosing(self.steps(generation)) as steps:
                async for _ in steps:
                    pass
        finally:
            self.engine.cancel(generation.request)

    async def drain(self) -> None:
        """Refuse new requests, let the running ones finish within the grace period, end the others with an error."""
        self.is_draining = True
        deadline = time.monotonic() + self.settings.shutdown_grace
        while self.engine.num_unfinished and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        self.engine.fail_all(EngineStoppedError())

    def new_id(self, body: DiffusionFields, prefix: str) -> str:
        """An id for an answer; who asked for it is logged beside it."""
        answer_id = f"{prefix}-{secrets.token_hex(12)}"
        if body.user or body.metadata:
            logger.info("%s: user %.1000r, metadata %.4000r", answer_id, body.user, body.metadata)
        return answer_id

    def decode_token(self, token_id: int) -> str:
        """One token alone; empty without a tokenizer."""
        return self.tokenizer.decode([token_id]) if self.tokenizer else ""

    def _require_running(self) -> None:
        if self.is_draining:
            raise shutting_down()

    def _observe_finished(self, generation: Generation) -> None:
        text = generation.text
        self.metrics.observe_finished(
            text.finish_reason or "unfinished",
            prompt_tokens=generation.usage()["prompt_tokens"],
            completion_tokens=generation.usage()["completion_tokens"],
            seconds=time.monotonic() - generation.started,
        )


def _params(body: DiffusionFields, gen_length: int, seed: int | None = None) -> GenerationParams:
    return body.to_params(gen_length=gen_length, seed=seed_of(body) if seed is None else seed)


def seed_of(body: DiffusionFields | ScoreRequest) -> int:
    """The seed asked for, or a new one."""
    return secrets.randbits(53) if body.seed is None else body.seed


def state_of(request: HTTPRequest) -> ServerState:
    """The state of the app that serves this request."""
    return request.app.state.server


def step_object(state: ServerState, timed: TimedStep) -> dict[str, Any]:
    """The `step` event of API.md section 5."""
    event: DenoisingStep = timed.event
    body: dict[str, Any] = {
        "step": event.step,
        "block": event.block,
        "changes": [
            {
                "op": change.op,
                "step": change.step,
                "position": change.position,
                "token_id": change.token_id,
                "text": state.decode_token(change.token_id),
                "confidence": change.confidence,
            }
            for change in event.changes
        ],
        "masked": event.masked,
        "elapsed_ms": round(timed.elapsed_ms, 3),
    }
    if event.predictions is not None:
        body["predictions"] = [
            {**asdict(prediction), "text": state.decode_token(prediction.token_id)} for prediction in event.predictions
        ]
    return body
