"""An answer that is one of given strings: the one that the model finds likeliest (vLLM's `structured_outputs.choice`).

Nothing is denoised. Each string, with the token that would end it, gets LLaDA's likelihood estimate after the prompt;
at temperature 0 the best is taken, above it one is drawn from softmax(log-likelihood / temperature). Shape suffix: C
candidates.
"""

import time
from collections.abc import AsyncGenerator, Generator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import torch
from fastapi import Request
from sse_starlette import ServerSentEvent

from llada_core.counter_noise import Purpose, uniform
from server.errors import bad_request
from server.likelihood import estimation, require_scorable
from server.openai_answer import Dialect, envelope
from server.schemas import OpenAIFields
from server.sse import StreamResponse, event, while_connected
from server.state import ServerState, seed_of, state_of

MC_NUM = 64


async def respond_with_a_choice(
    dialect: Dialect, body: OpenAIFields, prompts: Sequence[list[int]], request: Request, *, end_id: int
) -> dict[str, Any] | StreamResponse:
    """Choose `n` times after each prompt and answer as `body` asks: at once, or as a stream.

    Args:
        end_id: the token that would end a string.
    """
    state = state_of(request)
    assert body.structured_outputs is not None
    texts = body.structured_outputs.choice
    candidates = [await state.encode_segment(text, "structured_outputs") for text in texts]
    _require_room(body, texts, candidates)
    for prompt, ids in product(prompts, candidates):
        require_scorable(state, prompt, [*ids, end_id], completion_field="structured_outputs")
    answer_id = state.new_id(body, dialect.id_prefix)
    answer = ChoiceAnswer(answer_id, dialect, state, body, prompts, texts, candidates, end_id, seed_of(body))
    if body.stream:
        return StreamResponse(answer.chunks(), request, release=lambda: None)
    return await while_connected(request, answer.completed())


def _require_room(body: OpenAIFields, texts: Sequence[str], candidates: Sequence[list[int]]) -> None:
    for text, ids in zip(texts, candidates, strict=True):
        if body.length is not None and len(ids) > body.length:
            raise bad_request(
                f"max_tokens is {body.length}; the choice {text!r} has {len(ids)} tokens and must fit", "max_tokens"
            )


@dataclass(frozen=True, slots=True)
class ChoiceAnswer:
    """Choices on their way to an OpenAI client; `candidates` are the texts' ids."""

    id: str
    dialect: Dialect
    state: ServerState
    body: OpenAIFields
    prompts: Sequence[list[int]]
    texts: Sequence[str]
    candidates: Sequence[list[int]]
    end_id: int
    seed: int
    started: float = field(default_factory=time.monotonic)
    created: int = field(default_factory=lambda: int(time.time()))

    async def completed(self) -> dict[str, Any]:
        """The body of a plain answer."""
        chosen = [await self._choose(index) for index in range(len(self.prompts) * self.body.n)]
        choices = [self._choice(index, one, self.dialect.content(self.texts[one])) for index, one in enumerate(chosen)]
        return {
            **self._envelope(self.dialect.object),
            "choices": choices,
            "usage": self._usage(chosen),
            "generation_params": self._params(),
        }

    async def chunks(self) -> AsyncGenerator[ServerSentEvent]:
        """The events of a streamed answer: each choice as a whole, when it is made."""
        head = self._envelope(self.dialect.chunk_object)
        chosen = []
        for index in range(len(self.prompts) * self.body.n):
            if opening := self.dialect.opening():
                begun = {"index": index, **opening, "logprobs": None, "finish_reason": None}
                yield event({**head, "choices": [begun]})
            one = await self._choose(index)
            chosen.append(one)
            choice = self._choice(index, one, self.dialect.chunk_content(self.texts[one]))
            yield event({**head, "choices": [choice], "generation_params": self._params()})
        if self.body.stream_options and self.body.stream_options.include_usage:
            yield event({**head, "choices": [], "usage": self._usage(chosen)})
        yield event("[DONE]")

    async def _choose(self, index: int) -> int:
        """Which candidate the choice `index` of the answer is."""
        prompt, seed = self.prompts[index // self.body.n], self.seed + index % self.body.n
        return await self.state.compute(self._choosing(prompt, seed), started=self.started)

    def _choosing(self, prompt: Sequence[int], seed: int) -> Generator[None, None, int]:
        """The work of it, for a model thread."""
        scores = []
        for ids in self.candidates:
            found = yield from estimation(
                self.state, prompt, [*ids, self.end_id], mc_num=MC_NUM, cfg_scale=self.body.cfg_scale, seed=seed
            )
            scores.append(found.value)
        scores_C = torch.tensor(scores)
        if self.body.temperature:
            draws_C = uniform(seed, Purpose.GUMBEL, 0, torch.arange(len(scores)))
            scores_C -= self.body.temperature * torch.log(-torch.log(draws_C))
        return int(scores_C.argmax())

    def _choice(self, index: int, one: int, content: dict[str, Any]) -> dict[str, Any]:
        shown = {"index": index, **content, "logprobs": None, "finish_reason": "stop"}
        if self.body.return_token_ids:
            shown |= {"token_ids": self.candidates[one], "prompt_token_ids": self.prompts[index // self.body.n]}
        return shown

    def _usage(self, chosen: Sequence[int]) -> dict[str, int]:
        prompt_tokens = sum(len(prompt) for prompt in self.prompts)
        completion_tokens = sum(len(self.candidates[one]) for one in chosen)
        passes = MC_NUM * (2 if self.body.cfg_scale else 1) * len(self.candidates) * len(chosen)
        return {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": completion_tokens,
            "total_tokens": prompt_tokens + completion_tokens,
            "denoising_steps": 0,
            "forward_passes": passes,
        }

    def _params(self) -> dict[str, Any]:
        return {
            "temperature": self.body.temperature,
            "cfg_scale": self.body.cfg_scale,
            "seed": self.seed,
            "mc_num": MC_NUM,
        }

    def _envelope(self, kind: str) -> dict[str, Any]:
        return envelope(self.state, self.id, kind, created=self.created)
