"""`POST /v1/completions`: OpenAI's completions over denoising."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from llada_core.text.special_tokens import SpecialTokens
from server.replies.denoised import Echo, respond
from server.replies.logprobs import ScoredToken, TokenNames, completion_logprobs
from server.schemas import CompletionRequest, FillInTheMiddleRequest
from server.schemas.answers import CHUNKS, Completion, answers
from server.state import state_of

router = APIRouter()


class CompletionDialect:
    id_prefix = "cmpl"
    object = "text_completion"
    chunk_object = "text_completion"
    has_one_prompt = False

    def content(self, text: str) -> dict[str, Any]:
        return {"text": text}

    chunk_content = content

    def logprobs(self, tokens: Sequence[ScoredToken], names: TokenNames) -> dict[str, Any]:
        return completion_logprobs(tokens, names)

    def opening(self) -> None:
        return None

    def end_id(self, special_tokens: SpecialTokens) -> int:
        return special_tokens.eos_id


_ANSWERS = answers(Completion, CHUNKS)


@router.post("/v1/completions", response_model=None, responses=_ANSWERS)
async def create_completion(body: CompletionRequest, request: Request) -> dict[str, Any] | Response:
    """Complete a prompt, or each of a list."""
    state = state_of(request)
    state.check_model(body.model)
    state.require_room(len(body.prompts) * body.n)  # before work is put into what will be refused
    prompts = [await state.encode_prompt(prompt) for prompt in body.prompts]
    suffix = [] if body.suffix is None else await state.encode_segment(body.suffix, "suffix")
    echoes = [Echo(prompt, state.text_of(prompt)) for prompt in body.prompts] if body.echo else None
    return await respond(CompletionDialect(), body, prompts, request, suffix=suffix, echoes=echoes)


@router.post("/v1/fim/completions", response_model=None, responses=_ANSWERS)
async def fill_in_the_middle(body: FillInTheMiddleRequest, request: Request) -> dict[str, Any] | Response:
    """Fill the gap between a prompt and a suffix."""
    return await create_completion(body, request)
