"""A generation in OpenAI's protocol, plain or streamed: what completions and chat completions share."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from fastapi import Request
from sse_starlette import ServerSentEvent

from server.generation import Generation
from server.schemas import OpenAIFields
from server.sse import StreamResponse, event, while_connected
from server.state import ServerState, state_of, step_object


class Dialect(Protocol):
    """Where the two endpoints differ."""

    id_prefix: str
    object: str
    chunk_object: str

    def content(self, text: str) -> dict[str, Any]:
        """The part of a choice that holds the whole text."""

    def chunk_content(self, text: str) -> dict[str, Any]:
        """The part of a chunk's choice that holds a piece of text."""

    def opening(self) -> dict[str, Any] | None:
        """The part of the choice of a first chunk that comes before any text; None for no such chunk."""


async def respond(
    dialect: Dialect, body: OpenAIFields, prompt: list[int], request: Request
) -> dict[str, Any] | StreamResponse:
    """Generate after `prompt` and answer as `body` asks: at once when finished, or streamed."""
    state = state_of(request)
    generation = state.admit(body, state.canvas(body, prompt), id_prefix=dialect.id_prefix)
    answer = OpenAIAnswer(dialect, state, body, generation, prompt)
    if body.stream:
        release = partial(state.engine.cancel, generation.request)
        return StreamResponse(answer.chunks(), request, release=release)
    await while_connected(request, state.finish(generation))
    return answer.completed()


@dataclass(frozen=True, slots=True)
class OpenAIAnswer:
    """One generation on its way to an OpenAI client."""

    dialect: Dialect
    state: ServerState
    body: OpenAIFields
    generation: Generation
    prompt: list[int]

    def completed(self) -> dict[str, Any]:
        """The body of a plain answer; the generation is finished."""
        return {
            **self._envelope(self.dialect.object),
            "choices": [self._choice(self.dialect.content(self.generation.text.text))],
            "usage": self.generation.usage(),
            "generation_params": self.generation.generation_params(),
        }

    async def chunks(self) -> AsyncGenerator[ServerSentEvent]:
        """The events of a streamed answer: final text in order or, with `diffusing`, the draft after every step."""
        envelope = self._envelope(self.dialect.chunk_object)
        if opening := self.dialect.opening():
            choice = {"index": 0, **opening, "logprobs": None, "finish_reason": None}
            yield event({**envelope, "choices": [choice]})
        text = self.generation.text
        async with aclosing(self.state.steps(self.generation)) as steps:
            async for timed, delta in steps:
                if not (delta or self.body.diffusing or text.finish_reason):
                    continue
                shown = text.draft() if self.body.diffusing else delta
                chunk = {**envelope, "choices": [self._choice(self.dialect.chunk_content(shown))]}
                if self.body.diffusing:
                    chunk["denoising"] = step_object(self.state, timed)
                if text.finish_reason:
                    chunk["generation_params"] = self.generation.generation_params()
                yield event(chunk)
        if self.body.stream_options and self.body.stream_options.include_usage:
            yield event({**envelope, "choices": [], "usage": self.generation.usage()})
        yield event("[DONE]")

    def _envelope(self, kind: str) -> dict[str, Any]:
        generation = self.generation
        return {
            "id": generation.id,
            "object": kind,
            "created": generation.created,
            "model": self.state.settings.model_name,
        }

    def _choice(self, content: dict[str, Any]) -> dict[str, Any]:
        text = self.generation.text
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": text.finish_reason}
        if self.body.return_token_ids and text.finish_reason:
            choice |= {"token_ids": text.text_ids, "prompt_token_ids": self.prompt}
        return choice
