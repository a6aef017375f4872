"""An answer that is one of several given strings: the likeliest one (vLLM's `structured_outputs.choice`).

Nothing is denoised. Each string, followed by the token that would end it, gets LLaDA's likelihood estimate after the
prompt; at temperature 0 the best one is taken, above it one is drawn from softmax(log-likelihood / temperature). Shape
suffix: C candidates.
"""

from collections.abc import AsyncGenerator, Generator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from sse_starlette import ServerSentEvent

from llada_core.counter_noise import Purpose, uniform
from llada_core.diffusion.guidance import num_passes
from server.engine.work import Work
from server.http.api_error import bad_request, shortened
from server.replies.endings import CANCELLED, finish_reason_of
from server.replies.likelihood import Likelihood
from server.replies.openai_shape import OpenAIShape
from server.replies.running import Running
from server.replies.usage import Usage
from server.schemas.openai import OpenAIFields

MC_NUM = 64


@dataclass(frozen=True, slots=True)
class Candidate:
    """A string that may be the answer, and its ids."""

    text: str
    token_ids: list[int]


@dataclass(frozen=True, slots=True)
class ChoiceParams:
    """The settings of a choice, as the answer reports them."""

    temperature: float
    cfg_scale: float
    seed: int
    mc_num: int = MC_NUM


def require_fitting(body: OpenAIFields, candidates: Sequence[Candidate]) -> None:
    """
    Raises:
        APIError: a candidate is longer than the generation length that was requested.
    """
    for candidate in candidates:
        num_tokens = len(candidate.token_ids)
        if body.length is not None and num_tokens > body.length:
            raise bad_request(
                f"{body.length_name} is {body.length}; the choice {shortened(candidate.text)} has {num_tokens} tokens "
                "and must fit",
                body.length_name,
            )


def choosing(
    likelihood: Likelihood,
    prompts: Sequence[Sequence[int]],
    endings: Sequence[Sequence[int]],
    params: ChoiceParams,
    *,
    choices_per_prompt: int,
) -> Generator[int, None, list[int]]:
    """The work for a model thread, which returns the index in `endings` of every choice."""
    chosen = []
    for prompt in prompts:
        for number in range(choices_per_prompt):
            seed = params.seed + number
            scores = []
            for ending in endings:
                estimate = yield from likelihood.estimation(
                    prompt, ending, mc_num=params.mc_num, cfg_scale=params.cfg_scale, seed=seed
                )
                scores.append(estimate.value)
            chosen.append(_pick(torch.tensor(scores), params.temperature, seed))
    return chosen


def _pick(scores_C: torch.Tensor, temperature: float, seed: int) -> int:
    if temperature:
        draws_C = uniform(seed, Purpose.GUMBEL, 0, torch.arange(len(scores_C)))
        # float32, as the scores are: the draws are float64.
        scores_C = (scores_C - temperature * torch.log(-torch.log(draws_C))).float()
    return int(scores_C.argmax())


@dataclass(frozen=True, slots=True)
class ChosenReply:
    """The choices of an answer; `work` computes which candidates they are."""

    shape: OpenAIShape
    candidates: Sequence[Candidate]
    params: ChoiceParams
    work: Work[list[int]]
    running: Running
    _finish_reasons: list[str] = field(default_factory=list, init=False)
    _answer: list[Candidate] = field(default_factory=list, init=False)

    async def completed(self) -> dict[str, Any]:
        """Wait for the choices and return the body of a plain answer."""
        chosen = await self._chosen()
        content = self.shape.dialect.content
        choices = [
            self._choice(index, candidate, content(candidate.text), finish_reason="stop")
            for index, candidate in enumerate(chosen)
        ]
        return self.shape.completed(choices, self._usage(chosen), asdict(self.params))

    async def chunks(self) -> AsyncGenerator[ServerSentEvent]:
        """The events of a streamed answer: each choice as a whole."""
        dialect = self.shape.dialect
        opening = dialect.opening()
        if opening is not None:
            for index in range(self.shape.num_choices):
                choice = self.shape.choice(index, opening, finish_reason=None)
                yield self.shape.chunk(choice, is_first=True, usage=partial(self._usage, []))
        chosen = await self._chosen()
        usage = partial(self._usage, chosen)
        for index, candidate in enumerate(chosen):
            choice = self._choice(index, candidate, dialect.chunk_content(candidate.text), finish_reason=None)
            yield self.shape.chunk(choice, is_first=opening is None, usage=usage)
            ending = self.shape.choice(index, dialect.ending(), finish_reason="stop")
            # Once for an answer.
            more = {"generation_params": asdict(self.params)} if index == len(chosen) - 1 else {}
            yield self.shape.chunk(ending, is_first=False, usage=usage, **more)
        for last in self.shape.closing(usage()):
            yield last

    def release(self) -> None:
        """Compute nothing more for this answer, and report it."""
        self.work.cancel()
        if not self._finish_reasons:
            self._fail(CANCELLED)
        self.running.endings.report_choices(self._finish_reasons, self._usage(self._answer))

    async def _chosen(self) -> list[Candidate]:
        try:
            self._answer.extend(self.candidates[index] for index in await self.running.result_of(self.work))
        except Exception as error:
            self._fail(finish_reason_of(error))
            raise
        self._finish_reasons.extend("stop" for _ in self._answer)
        self.running.endings.finish_choices("stop", self._usages(self._answer))
        return self._answer

    def _fail(self, reason: str) -> None:
        self._finish_reasons.extend([reason] * self.shape.num_choices)
        self.running.endings.fail_choices(self._finish_reasons)

    def _choice(
        self, index: int, candidate: Candidate, content: dict[str, Any], *, finish_reason: str | None
    ) -> dict[str, Any]:
        return self.shape.choice(index, content, finish_reason=finish_reason, token_ids=candidate.token_ids)

    def _usage(self, chosen: Sequence[Candidate]) -> Usage:
        return Usage.of_choices(self._usages(chosen), choices_per_prompt=self.shape.body.n)

    def _usages(self, chosen: Sequence[Candidate]) -> list[Usage]:
        passes = self.params.mc_num * num_passes(self.params.cfg_scale) * len(self.candidates)
        return [
            Usage(len(self.shape.prompt_of(index)), len(candidate.token_ids), 0, passes)
            for index, candidate in enumerate(chosen)
        ]
