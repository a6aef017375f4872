"""A denoised answer in OpenAI's protocol, plain or streamed: completions and chat completions alike."""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from sse_starlette import ServerSentEvent

from llada_core.text.thinking import ThinkingReader
from llada_core.text.tokenizer import Tokenizer
from server.engine.mailbox import TimedStep
from server.replies.denoise_events import step_object
from server.replies.dialects import Dialect
from server.replies.generation import Generation
from server.replies.interleave import interleaved
from server.replies.logprobs import ScoredToken, TokenNames, commit_steps, prompt_tokens
from server.replies.openai_shape import OpenAIShape
from server.replies.running import Running
from server.replies.thinking import thinking_fields, usage_with_thinking
from server.replies.tool_calls import CallReader
from server.replies.usage import Usage


@dataclass(frozen=True, slots=True)
class Echo:
    """A prompt that the answer repeats before its completion: as the client sent it, and as text."""

    prompt: str | list[int]
    text: str


@dataclass(slots=True)
class Choice:
    """One generation of an answer; `is_begun` is true once a chunk of it was sent, `is_ended` with its last one.

    Attributes:
        calls: reads the calls of tools, if the answer may have any.
        thinking: tells thinking from what is said, if the answer may have any.
    """

    index: int
    generation: Generation
    echo: Echo | None
    calls: CallReader | None = None
    thinking: ThinkingReader | None = None
    is_begun: bool = field(default=False, init=False)
    is_ended: bool = field(default=False, init=False)

    @property
    def echoed_text(self) -> str:
        """The text before the generated text."""
        return self.echo.text if self.echo else ""

    @property
    def finish_reason(self) -> str | None:
        """The reason that the answer gives: an answer that calls ends for that."""
        reason = self.generation.text.finish_reason
        return "tool_calls" if reason and self.calls and self.calls.has_calls else reason

    def content(self, dialect: Dialect) -> dict[str, Any]:
        """The part of the finished choice that holds the whole text, its thinking apart, or its calls."""
        text = self.generation.text.text
        if self.thinking is not None:
            text = self.thinking.push(text, is_last=True).said
        content = dialect.content(self.echoed_text + text)
        if self.calls is not None:
            self.calls.push(text, is_last=True)
            content["message"] |= self.calls.message()
        if self.thinking is not None:
            content["message"] |= thinking_fields(self.thinking.thinking)
            if self.thinking.thinking is not None:
                content["message"]["content"] = content["message"]["content"] or None
        return content

    def deltas(self, dialect: Dialect, delta: str) -> list[dict[str, Any]]:
        """The parts of chunks for text that became final."""
        is_last = self.generation.text.finish_reason is not None
        parts: list[dict[str, Any]] = []
        if self.thinking is not None:
            thinking, delta = self.thinking.push(delta, is_last=is_last)
            parts = [{"delta": thinking_fields(thinking)}] if thinking else []
        if self.calls is not None:
            return parts + [{"delta": part} for part in self.calls.push(delta, is_last=is_last)]
        return [*parts, dialect.chunk_content(delta)] if delta else parts

    def draft(self, dialect: Dialect) -> dict[str, Any]:
        """The part of a chunk for the whole current draft."""
        draft = self.generation.text.draft()
        if self.thinking is None:
            return dialect.chunk_content(self.echoed_text + draft)
        thinking, said = self.thinking.divide(draft)
        return {"delta": {**thinking_fields(thinking), "content": said}}


@dataclass(frozen=True, slots=True)
class DenoisedReply:
    """The choices of an answer while they run and once they are finished."""

    shape: OpenAIShape
    choices: Sequence[Choice]
    running: Running
    tokenizer: Tokenizer | None

    async def completed(self) -> dict[str, Any]:
        """Run all choices to completion and return the body of a plain answer."""
        await self.running.finish(choice.generation for choice in self.choices)
        choices = [self._completed_choice(choice) for choice in self.choices]
        return self.shape.completed(choices, self._usage(), self._generation_params())

    async def chunks(self) -> AsyncGenerator[ServerSentEvent]:
        """The events of a streamed answer: final text in order or, with `diffusing`, the draft after every step."""
        dialect = self.shape.dialect
        for choice in self.choices:
            opening = dialect.opening() if choice.echo is None else dialect.chunk_content(choice.echo.text)
            if opening is not None:
                yield self._chunk(choice, opening, self._echoed_tokens(choice))
        streams = [self.running.steps(choice.generation) for choice in self.choices]
        async with aclosing(interleaved(streams)) as steps:
            async for index, (timed, delta) in steps:
                for chunk in self._step_chunks(self.choices[index], timed, delta):
                    yield chunk
        for last in self.shape.closing(self._usage()):
            yield last

    def release(self) -> None:
        """Take choices that are still running out of the batch."""
        self.running.release([choice.generation for choice in self.choices], self._usage())

    def _completed_choice(self, choice: Choice) -> dict[str, Any]:
        text = choice.generation.text
        tokens = [*self._echoed_tokens(choice), *text.take_tokens(text_offset=len(choice.echoed_text))]
        return self.shape.choice(
            choice.index,
            choice.content(self.shape.dialect),
            finish_reason=choice.finish_reason,
            stop_reason=text.stop_reason,
            token_ids=text.text_ids,
            scores=self._scores(tokens),
        )

    def _step_chunks(self, choice: Choice, timed: TimedStep, delta: str) -> Iterator[ServerSentEvent]:
        """The chunks for a step: its text, and once the choice is finished a last one without text.

        Many clients stop reading a choice at its `finish_reason`, so no text may come with it.
        """
        text, dialect, is_draft = choice.generation.text, self.shape.dialect, self.shape.body.diffusing
        tokens = text.take_tokens(text_offset=len(choice.echoed_text))
        more: dict[str, Any] = {"denoising": step_object(timed, self.tokenizer)} if is_draft else {}
        # Also without new text: the last step releases what the readers of thinking and calls have held back.
        contents = choice.deltas(dialect, delta)
        if is_draft:
            contents = [choice.draft(dialect)]
        token_ids = [token.token_id for token in tokens]
        # Tokens of a text that is not certain yet come with an empty piece.
        for content in contents or [dialect.chunk_content("")][: len(tokens)]:
            yield self._chunk(choice, content, tokens, token_ids=token_ids, **more)
            tokens, token_ids = [], []
        if text.finish_reason:
            # The settings may be long: once for an answer, not for every choice.
            choice.is_ended = True
            is_last = all(other.is_ended for other in self.choices)
            settings: dict[str, Any] = {"generation_params": self._generation_params()} if is_last else {}
            yield self._chunk(
                choice,
                dialect.ending(),
                [],
                finish_reason=choice.finish_reason,
                stop_reason=text.stop_reason,
                **settings,
            )

    def _chunk(
        self,
        choice: Choice,
        content: dict[str, Any],
        tokens: Sequence[ScoredToken],
        *,
        token_ids: Sequence[int] = (),
        finish_reason: str | None = None,
        stop_reason: str | int | None = None,
        **more: Any,
    ) -> ServerSentEvent:
        is_first, choice.is_begun = not choice.is_begun, True
        chunk_choice = self.shape.choice(
            choice.index,
            content,
            finish_reason=finish_reason,
            stop_reason=stop_reason,
            token_ids=token_ids,
            scores=self._scores(tokens),
        )
        return self.shape.chunk(chunk_choice, is_first=is_first, usage=self._usage, **more)

    def _echoed_tokens(self, choice: Choice) -> list[ScoredToken]:
        """The prompt's tokens, if the answer repeats them with log-probabilities."""
        if choice.echo is None or self.shape.body.num_alternatives is None:
            return []
        return prompt_tokens(choice.echo.prompt, self.shape.prompt_of(choice.index), self.tokenizer)

    def _scores(self, tokens: Sequence[ScoredToken]) -> dict[str, Any] | None:
        if self.shape.body.num_alternatives is None:
            return None
        names = TokenNames(self.tokenizer, as_ids=self.shape.body.return_tokens_as_token_ids)
        return {"logprobs": self.shape.dialect.logprobs(tokens, names), "commit_steps": commit_steps(tokens)}

    def _usage(self) -> Usage:
        usages = [usage_with_thinking(choice.generation, choice.thinking) for choice in self.choices]
        return Usage.of_choices(usages, choices_per_prompt=self.shape.body.n)

    def _generation_params(self) -> dict[str, Any]:
        """The settings of the first choice; the others differ only in the seed."""
        return self.choices[0].generation.generation_params()
