"""The objects of OpenAI's completions and chat completions: what denoised and chosen answers share."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sse_starlette import ServerSentEvent

from llada_core.text.special_tokens import SpecialTokens
from server.http.sse import event
from server.replies.logprobs import ScoredToken, TokenNames
from server.schemas import OpenAIFields


class Dialect(Protocol):
    """Where the two endpoints differ."""

    id_prefix: str
    object: str
    chunk_object: str
    # vLLM's places of `prompt_token_ids`: a chat has one prompt, a completion one for each choice.
    has_one_prompt: bool

    def content(self, text: str) -> dict[str, Any]:
        """The part of a choice that holds the whole text."""

    def chunk_content(self, text: str) -> dict[str, Any]:
        """The part of a chunk's choice that holds a piece of text."""

    def logprobs(self, tokens: Sequence[ScoredToken], names: TokenNames) -> dict[str, Any]:
        """The log-probabilities of a choice or chunk."""

    def opening(self) -> dict[str, Any] | None:
        """The part of the choice of a first chunk that comes before any text; None for no such chunk."""

    def end_id(self, special_tokens: SpecialTokens) -> int:
        """The token that ends a text here."""


@dataclass(frozen=True, slots=True)
class OpenAIShape:
    """Makes the objects of one answer, plain or streamed; `prompts` are those of all its choices, in order."""

    id: str
    created: int
    model: str
    dialect: Dialect
    body: OpenAIFields
    prompts: Sequence[Sequence[int]]

    def choice(
        self,
        index: int,
        content: Mapping[str, Any],
        *,
        finish_reason: str | None,
        token_ids: Sequence[int] = (),
        scores: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """A choice, or what a chunk says of it.

        Args:
            token_ids: of the text in `content`.
            scores: its log-probabilities, if they were asked for.
        """
        made = {"index": index, **content, **(scores or {"logprobs": None}), "finish_reason": finish_reason}
        if self.body.return_token_ids:
            made["token_ids"] = list(token_ids)
        return made

    def completed(
        self, choices: Sequence[dict[str, Any]], usage: Mapping[str, int], params: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The body of a plain answer."""
        made = {**self._envelope(self.dialect.object), "choices": choices, "usage": usage, "generation_params": params}
        return self._with_prompts(made)

    def chunk(self, choice: dict[str, Any], *, is_first: bool, **more: Any) -> ServerSentEvent:
        """A chunk of a stream; `is_first` of its choice."""
        made = {**self._envelope(self.dialect.chunk_object), "choices": [choice], **more}
        return event(self._with_prompts(made) if is_first else made)

    def closing(self, usage: Mapping[str, int]) -> Iterator[ServerSentEvent]:
        """What a stream ends with."""
        if self.body.stream_options and self.body.stream_options.include_usage:
            yield event({**self._envelope(self.dialect.chunk_object), "choices": [], "usage": usage})
        yield event("[DONE]")

    def _envelope(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _with_prompts(self, made: dict[str, Any]) -> dict[str, Any]:
        if self.body.return_token_ids:
            if self.dialect.has_one_prompt:
                made["prompt_token_ids"] = self.prompts[0]
            else:
                for choice in made["choices"]:
                    choice["prompt_token_ids"] = self.prompts[choice["index"]]
        return made
