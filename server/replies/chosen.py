"""An answer that is one of given strings: the one that the model finds likeliest (vLLM's `structured_outputs.choice`).

Nothing is denoised. Each string, with the token that would end it, gets LLaDA's likelihood estimate after the prompt;
at temperature 0 the best is taken, above it one is drawn from softmax(log-likelihood / temperature). Shape suffix: C
candidates.
"""

import time
from collections.abc import AsyncGenerator, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from fastapi import Request
from sse_starlette import ServerSentEvent

from llada_core.counter_noise import Purpose, uniform
from server.engine.work import Work
from server.http.api_error import bad_request, shortened
from server.http.sse import StreamResponse, while_connected
from server.replies.likelihood import estimation, require_scorable
from server.replies.openai_shape import Dialect, OpenAIShape
from server.schemas import OpenAIFields
from server.state import ServerState, seed_of, state_of

MC_NUM = 64


async def respond_with_a_choice(
    dialect: Dialect, body: OpenAIFields, texts: Sequence[str], prompts: Sequence[list[int]], request: Request
) -> dict[str, Any] | StreamResponse:
    """Choose one of `texts`, `n` times after each prompt, and answer as `body` asks: at once, or as a stream."""
    state = state_of(request)
    state.require_room(len(prompts) * body.n)
    candidates = [await state.encode_segment(text, "structured_outputs") for text in texts]
    _require_room(body, texts, candidates)
    for prompt in prompts:
        state.generation_length(body, len(prompt))
    ended = [[*ids, dialect.end_id(state.special_tokens)] for ids in candidates]
    require_scorable(state, prompts, ended, completion_field="structured_outputs")
    prompts = [prompt for prompt in prompts for _ in range(body.n)]
    answer_id, created = state.new_id(body, dialect.id_prefix), int(time.time())
    shape = OpenAIShape(answer_id, created, state.settings.model_name, dialect, body, prompts)
    seed = seed_of(body)
    work = state.start(_choosing(state, body, prompts, ended, seed))
    answer = ChoiceAnswer(shape, state, body, texts, candidates, seed, work)
    if body.stream:
        return StreamResponse(answer.chunks(), request, release=work.cancel)
    return await while_connected(request, answer.completed())


def _require_room(body: OpenAIFields, texts: Sequence[str], candidates: Sequence[list[int]]) -> None:
    for text, ids in zip(texts, candidates, strict=True):
        if body.length is not None and len(ids) > body.length:
            raise bad_request(
                f"{body.length_name} is {body.length}; the choice {shortened(text)} has {len(ids)} tokens and must fit",
                body.length_name,
            )


def _choosing(
    state: ServerState, body: OpenAIFields, prompts: Sequence[list[int]], ended: Sequence[list[int]], seed: int
) -> Generator[int, None, list[int]]:
    """The work of it, for a model thread: which candidate each choice is."""
    chosen = []
    for index, prompt in enumerate(prompts):
        own_seed = seed + index % body.n
        scores = []
        for ids in ended:
            found = yield from estimation(state, prompt, ids, mc_num=MC_NUM, cfg_scale=body.cfg_scale, seed=own_seed)
            scores.append(found.value)
        scores_C = torch.tensor(scores)
        if body.temperature:
            draws_C = uniform(own_seed, Purpose.GUMBEL, 0, torch.arange(len(scores)))
            scores_C -= body.temperature * torch.log(-torch.log(draws_C))
        chosen.append(int(scores_C.argmax()))
    return chosen


@dataclass(frozen=True, slots=True)
class ChoiceAnswer:
    """Choices on their way to an OpenAI client; `candidates` are the texts' ids, `work` tells which they are."""

    shape: OpenAIShape
    state: ServerState
    body: OpenAIFields
    texts: Sequence[str]
    candidates: Sequence[list[int]]
    seed: int
    work: Work[list[int]]
    started: float = field(default_factory=time.monotonic)

    async def completed(self) -> dict[str, Any]:
        """The body of a plain answer."""
        chosen = await self._chosen()
        content = self.shape.dialect.content
        choices = [self._choice(index, one, content(self.texts[one])) for index, one in enumerate(chosen)]
        return self.shape.completed(choices, self._usage(chosen), self._params())

    async def chunks(self) -> AsyncGenerator[ServerSentEvent]:
        """The events of a streamed answer: each choice as a whole."""
        dialect = self.shape.dialect
        opening = dialect.opening()
        if opening is not None:
            for index in range(len(self.shape.prompts)):
                yield self.shape.chunk(self.shape.choice(index, opening, finish_reason=None), is_first=True)
        chosen = await self._chosen()
        for index, one in enumerate(chosen):
            choice = self._choice(index, one, dialect.chunk_content(self.texts[one]))
            yield self.shape.chunk(choice, is_first=opening is None, generation_params=self._params())
        for last in self.shape.closing(self._usage(chosen)):
            yield last

    async def _chosen(self) -> list[int]:
        chosen = await self.state.result(self.work, started=self.started)
        usage = self._usage(chosen)
        self.state.metrics.observe_finished(
            "stop",
            prompt_tokens=usage["prompt_tokens"],
            completion_tokens=usage["completion_tokens"],
            seconds=time.monotonic() - self.started,
        )
        return chosen

    def _choice(self, index: int, one: int, content: dict[str, Any]) -> dict[str, Any]:
        return self.shape.choice(index, content, finish_reason="stop", token_ids=self.candidates[one])

    def _usage(self, chosen: Sequence[int]) -> dict[str, int]:
        prompt_tokens = sum(len(prompt) for prompt in self.shape.prompts) // self.body.n
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
