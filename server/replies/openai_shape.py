"""The objects of OpenAI's completions and chat completions, the same for denoised and chosen answers."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sse_starlette import ServerSentEvent

from server.http.sse import event
from server.replies.dialects import Dialect
from server.replies.envelope import Envelope
from server.replies.usage import Usage
from server.schemas.openai import OpenAIFields


@dataclass(frozen=True, slots=True)
class OpenAIShape:
    """Builds the objects of one answer, plain or streamed: `body.n` choices after each of `prompts`."""

    envelope: Envelope
    dialect: Dialect
    body: OpenAIFields
    prompts: Sequence[Sequence[int]]

    @property
    def num_choices(self) -> int:
        return len(self.prompts) * self.body.n

    def prompt_of(self, index: int) -> Sequence[int]:
        """The prompt that the choice `index` follows."""
        return self.prompts[index // self.body.n]

    def choice(
        self,
        index: int,
        content: Mapping[str, Any],
        *,
        finish_reason: str | None,
        stop_reason: str | int | None = None,
        token_ids: Sequence[int] = (),
        scores: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """A choice, or a chunk's part of it.

        Args:
            stop_reason: the stop string or id that ended it; None for EOS, EoT and the length.
            token_ids: the ids of the text in `content`.
            scores: its log-probabilities, if they were requested.
        """
        ending = {"finish_reason": finish_reason, "stop_reason": stop_reason}
        choice = {"index": index, **content, **(scores or {"logprobs": None}), **ending}
        if self.body.return_token_ids:
            choice["token_ids"] = list(token_ids)
        return choice

    def completed(self, choices: Sequence[dict[str, Any]], usage: Usage, params: Mapping[str, Any]) -> dict[str, Any]:
        """The body of a plain answer."""
        answer = self._object(self.dialect.object, choices) | {
            "usage": usage.as_completion(),
            "generation_params": params,
        }
        return self._with_prompts(answer)

    def chunk(
        self, choice: dict[str, Any], *, is_first: bool, usage: Callable[[], Usage], **more: Any
    ) -> ServerSentEvent:
        """A chunk of a stream.

        Args:
            is_first: no earlier chunk belongs to this choice.
            usage: counts all choices so far; called only if every chunk is to carry it.
        """
        chunk = {**self._object(self.dialect.chunk_object, [choice]), **more}
        if self._includes_usage:
            is_continuous = self.body.stream_options is not None and self.body.stream_options.continuous_usage_stats
            chunk["usage"] = usage().as_completion() if is_continuous else None
        return event(self._with_prompts(chunk) if is_first else chunk)

    def closing(self, usage: Usage) -> Iterator[ServerSentEvent]:
        """The last events of a stream."""
        if self._includes_usage:
            yield event({**self._object(self.dialect.chunk_object, []), "usage": usage.as_completion()})
        yield event("[DONE]")

    @property
    def _includes_usage(self) -> bool:
        return self.body.stream_options is not None and self.body.stream_options.include_usage

    def _object(self, kind: str, choices: Sequence[dict[str, Any]]) -> dict[str, Any]:
        envelope = self.envelope
        return {
            "id": envelope.id,
            "object": kind,
            "created": envelope.created,
            "model": envelope.model,
            "system_fingerprint": envelope.fingerprint,
            "choices": choices,
        }

    def _with_prompts(self, answer: dict[str, Any]) -> dict[str, Any]:
        if self.body.return_token_ids:
            if self.dialect.has_one_prompt:
                answer["prompt_token_ids"] = self.prompts[0]
            else:
                for choice in answer["choices"]:
                    choice["prompt_token_ids"] = self.prompt_of(choice["index"])
        return answer
