"""A generation in OpenAI's protocol, plain or streamed: what completions and chat completions share."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from sse_starlette import ServerSentEvent

from server.engine.mailbox import TimedStep
from server.http.sse import StreamResponse, while_connected
from server.replies.chosen import respond_with_a_choice
from server.replies.generation import Generation
from server.replies.interleave import interleaved
from server.replies.logprobs import ScoredToken, TokenNames, commit_steps, given_tokens
from server.replies.openai_shape import Dialect, OpenAIShape
from server.schemas import OpenAIFields
from server.state import ServerState, seed_of, state_of, step_object


async def respond(
    dialect: Dialect,
    body: OpenAIFields,
    prompts: Sequence[list[int]],
    request: Request,
    *,
    suffix: Sequence[int] = (),
    echoes: Sequence["Echo"] | None = None,
) -> dict[str, Any] | StreamResponse:
    """Generate `n` choices after each prompt and answer as `body` asks: at once when finished, or streamed.

    Args:
        echoes: what each prompt's choices begin their text with.
    """
    state = state_of(request)
    if body.structured_outputs is not None:
        return await respond_with_a_choice(dialect, body, body.structured_outputs.choice, prompts, request)
    seed = seed_of(body)
    prompts = [prompt for prompt in prompts for _ in range(body.n)]
    canvases = [
        state.canvas(
            body, prompt, seed=seed + index % body.n, suffix=suffix, num_alternatives=body.num_alternatives or 0
        )
        for index, prompt in enumerate(prompts)
    ]
    generations = state.admit(body, canvases, id_prefix=dialect.id_prefix)
    shape = OpenAIShape(generations[0].id, generations[0].created, state.settings.model_name, dialect, body, prompts)
    choices = [Choice(index, own, echoes[index // body.n] if echoes else None) for index, own in enumerate(generations)]
    answer = OpenAIAnswer(shape, state, body, choices)
    if body.stream:
        return StreamResponse(answer.chunks(), request, release=answer.cancel)
    await while_connected(request, answer.finish())
    return answer.completed()


@dataclass(frozen=True, slots=True)
class Echo:
    """A prompt that is shown before its completion: as it was sent, and as text."""

    sent: str | list[int]
    text: str


@dataclass(slots=True)
class Choice:
    """One of an answer's generations; `is_begun` once a chunk has told of it."""

    index: int
    generation: Generation
    echo: Echo | None
    is_begun: bool = field(default=False, init=False)

    @property
    def shown_before(self) -> str:
        """What stands before the generated text."""
        return self.echo.text if self.echo else ""


@dataclass(frozen=True, slots=True)
class OpenAIAnswer:
    """One or more generations on their way to an OpenAI client."""

    shape: OpenAIShape
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
        choices = []
        for choice in self.choices:
            text = choice.generation.text
            content = self.shape.dialect.content(choice.shown_before + text.text)
            tokens = [*self._echoed(choice), *text.take_tokens(text_offset=len(choice.shown_before))]
            choices.append(
                self.shape.choice(
                    choice.index,
                    content,
                    finish_reason=text.finish_reason,
                    token_ids=text.text_ids,
                    scores=self._scores(tokens),
                )
            )
        return self.shape.completed(choices, self._usage(), self._first.generation_params())

    async def chunks(self) -> AsyncGenerator[ServerSentEvent]:
        """The events of a streamed answer: final text in order or, with `diffusing`, the draft after every step."""
        dialect = self.shape.dialect
        for choice in self.choices:
            opening = dialect.opening() if choice.echo is None else dialect.chunk_content(choice.echo.text)
            if opening is not None:
                yield self._chunk(choice, opening, self._echoed(choice))
        streams = [self.state.steps(choice.generation) for choice in self.choices]
        async with aclosing(interleaved(streams)) as steps:
            async for index, (timed, delta) in steps:
                if (chunk := self._step(self.choices[index], timed, delta)) is not None:
                    yield chunk
        for last in self.shape.closing(self._usage()):
            yield last

    def _step(self, choice: Choice, timed: TimedStep, delta: str) -> ServerSentEvent | None:
        """What one step says to the client; None where that is nothing."""
        text = choice.generation.text
        if not (delta or self.body.diffusing or text.finish_reason):
            return None
        more: dict[str, Any] = {"denoising": step_object(self.state, timed)} if self.body.diffusing else {}
        if text.finish_reason:
            more["generation_params"] = self._first.generation_params()
        content = self.shape.dialect.chunk_content(choice.shown_before + text.draft() if self.body.diffusing else delta)
        tokens = text.take_tokens(text_offset=len(choice.shown_before))
        ids = [token.token_id for token in tokens]
        return self._chunk(choice, content, tokens, token_ids=ids, finish_reason=text.finish_reason, **more)

    def _chunk(
        self,
        choice: Choice,
        content: dict[str, Any],
        tokens: Sequence[ScoredToken],
        *,
        token_ids: Sequence[int] = (),
        finish_reason: str | None = None,
        **more: Any,
    ) -> ServerSentEvent:
        is_first, choice.is_begun = not choice.is_begun, True
        made = self.shape.choice(
            choice.index, content, finish_reason=finish_reason, token_ids=token_ids, scores=self._scores(tokens)
        )
        return self.shape.chunk(made, is_first=is_first, **more)

    @property
    def _first(self) -> Generation:
        """The choice that speaks for the settings of all; the others differ in the seed."""
        return self.choices[0].generation

    def _echoed(self, choice: Choice) -> list[ScoredToken]:
        """The prompt's tokens, where it is to be shown with log-probabilities."""
        if choice.echo is None or self.body.num_alternatives is None:
            return []
        return given_tokens(choice.echo.sent, self.shape.prompts[choice.index], self.state.tokenizer)

    def _scores(self, tokens: Sequence[ScoredToken]) -> dict[str, Any] | None:
        if self.body.num_alternatives is None:
            return None
        names = TokenNames(self.state.tokenizer)
        return {"logprobs": self.shape.dialect.logprobs(tokens, names), "commit_steps": commit_steps(tokens)}

    def _usage(self) -> dict[str, int]:
        """The sums over all choices, but for the prompts: each counts once, however many choices it has."""
        usages = [choice.generation.usage() for choice in self.choices]
        total = {name: sum(usage[name] for usage in usages) for name in usages[0]}
        total["prompt_tokens"] //= self.body.n
        total["total_tokens"] = total["prompt_tokens"] + total["completion_tokens"]
        return total
