"""A generation in OpenAI's protocol, plain or streamed: what completions and chat completions share."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import Request
from sse_starlette import ServerSentEvent

from server.generation import Generation
from server.interleave import interleaved
from server.logprobs import ScoredToken, TokenNames, commit_steps, given_tokens
from server.mailbox import TimedStep
from server.schemas import OpenAIFields
from server.sse import StreamResponse, event, while_connected
from server.state import ServerState, seed_of, state_of, step_object


class Dialect(Protocol):
    """Where the two endpoints differ."""

    id_prefix: str
    object: str
    chunk_object: str

    def content(self, text: str) -> dict[str, Any]:
        """The part of a choice that holds the whole text."""

    def chunk_content(self, text: str) -> dict[str, Any]:
        """The part of a chunk's choice that holds a piece of text."""

    def logprobs(self, tokens: Sequence[ScoredToken], names: TokenNames) -> dict[str, Any]:
        """The log-probabilities of a choice or chunk."""

    def opening(self) -> dict[str, Any] | None:
        """The part of the choice of a first chunk that comes before any text; None for no such chunk."""


def envelope(state: ServerState, answer_id: str, kind: str, *, created: int) -> dict[str, Any]:
    """What every object of an answer begins with."""
    return {"id": answer_id, "object": kind, "created": created, "model": state.settings.model_name}


async def respond(
    dialect: Dialect,
    body: OpenAIFields,
    prompts: Sequence[list[int]],
    request: Request,
    *,
    suffix: Sequence[int] = (),
    echoes: Sequence[str] | None = None,
) -> dict[str, Any] | StreamResponse:
    """Generate `n` choices after each prompt and answer as `body` asks: at once when finished, or streamed.

    Args:
        echoes: what each prompt's choices begin their text with.
    """
    state = state_of(request)
    seed = seed_of(body)
    canvases = [
        state.canvas(body, prompt, seed=seed + i, suffix=suffix, num_alternatives=body.num_alternatives or 0)
        for prompt in prompts
        for i in range(body.n)
    ]
    generations = state.admit(body, canvases, id_prefix=dialect.id_prefix)
    choices = [
        Choice(index, own, prompts[index // body.n], echoes[index // body.n] if echoes else None)
        for index, own in enumerate(generations)
    ]
    answer = OpenAIAnswer(dialect, state, body, choices)
    if body.stream:
        return StreamResponse(answer.chunks(), request, release=answer.cancel)
    await while_connected(request, answer.finish())
    return answer.completed()


@dataclass(frozen=True, slots=True)
class Choice:
    """One of an answer's generations, the prompt it began with, and that prompt as text where it is to be shown."""

    index: int
    generation: Generation
    prompt: list[int]
    echo: str | None


@dataclass(frozen=True, slots=True)
class OpenAIAnswer:
    """One or more generations on their way to an OpenAI client."""

    dialect: Dialect
    state: ServerState
    body: OpenAIFields
    choices: Sequence[Choice]

    async def finish(self) -> None:
        """Run all generations to their ends; cancelled, or when one fails, all leave the batch."""
        try:
            # The engine runs them all at once, in whatever order their steps are read.
            for choice in self.choices:
                await self.state.finish(choice.generation)
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Take out what is still running."""
        for choice in self.choices:
            self.state.engine.cancel(choice.generation.request)

    def completed(self) -> dict[str, Any]:
        """The body of a plain answer; the generations are finished."""
        return {
            **self._envelope(self.dialect.object),
            "choices": [
                self._choice(
                    choice,
                    self.dialect.content((choice.echo or "") + choice.generation.text.text),
                    [*self._echoed(choice), *self._new_tokens(choice)],
                )
                for choice in self.choices
            ],
            "usage": self._usage(),
            "generation_params": self._first.generation_params(),
        }

    async def chunks(self) -> AsyncGenerator[ServerSentEvent]:
        """The events of a streamed answer: final text in order or, with `diffusing`, the draft after every step."""
        envelope = self._envelope(self.dialect.chunk_object)
        for choice in self.choices:
            opening = self.dialect.opening() if choice.echo is None else self.dialect.chunk_content(choice.echo)
            if opening is not None:
                begun = {
                    "index": choice.index,
                    **opening,
                    **self._logprobs(self._echoed(choice)),
                    "finish_reason": None,
                }
                yield event({**envelope, "choices": [begun]})
        streams = [self.state.steps(choice.generation) for choice in self.choices]
        async with aclosing(interleaved(streams)) as steps:
            async for index, (timed, delta) in steps:
                if chunk := self._chunk(self.choices[index], timed, delta):
                    yield event({**envelope, **chunk})
        if self.body.stream_options and self.body.stream_options.include_usage:
            yield event({**envelope, "choices": [], "usage": self._usage()})
        yield event("[DONE]")

    def _chunk(self, choice: Choice, timed: TimedStep, delta: str) -> dict[str, Any] | None:
        """What one step says to the client; None where that is nothing."""
        text = choice.generation.text
        if not (delta or self.body.diffusing or text.finish_reason):
            return None
        shown = text.draft() if self.body.diffusing else delta
        content = self.dialect.chunk_content(shown)
        chunk: dict[str, Any] = {"choices": [self._choice(choice, content, self._new_tokens(choice))]}
        if self.body.diffusing:
            chunk["denoising"] = step_object(self.state, timed)
        if text.finish_reason:
            chunk["generation_params"] = self._first.generation_params()
        return chunk

    @property
    def _first(self) -> Generation:
        """The choice that speaks for the settings of all; the others differ in the seed."""
        return self.choices[0].generation

    def _envelope(self, kind: str) -> dict[str, Any]:
        return envelope(self.state, self._first.id, kind, created=self._first.created)

    def _echoed(self, choice: Choice) -> list[ScoredToken]:
        """The prompt's tokens, where it is to be shown with log-probabilities."""
        is_asked = choice.echo is not None and self.body.num_alternatives is not None
        return given_tokens(choice.prompt, self.state.tokenizer) if is_asked else []

    def _new_tokens(self, choice: Choice) -> list[ScoredToken]:
        if self.body.num_alternatives is None:
            return []
        return choice.generation.text.take_tokens(text_offset=len(choice.echo or ""))

    def _logprobs(self, tokens: Sequence[ScoredToken]) -> dict[str, Any]:
        if self.body.num_alternatives is None:
            return {"logprobs": None}
        return {
            "logprobs": self.dialect.logprobs(tokens, TokenNames(self.state.tokenizer)),
            "commit_steps": commit_steps(tokens),
        }

    def _choice(self, choice: Choice, content: dict[str, Any], tokens: Sequence[ScoredToken]) -> dict[str, Any]:
        text = choice.generation.text
        shown = {
            "index": choice.index,
            **content,
            **self._logprobs(tokens),
            "finish_reason": text.finish_reason,
        }
        if self.body.return_token_ids and text.finish_reason:
            shown |= {"token_ids": text.text_ids, "prompt_token_ids": choice.prompt}
        return shown

    def _usage(self) -> dict[str, int]:
        """The sums over all choices, but for the prompts: each counts once, however many choices it has."""
        usages = [choice.generation.usage() for choice in self.choices]
        total = {name: sum(usage[name] for usage in usages) for name in usages[0]}
        total["prompt_tokens"] //= self.body.n
        total["total_tokens"] = total["prompt_tokens"] + total["completion_tokens"]
        return total
