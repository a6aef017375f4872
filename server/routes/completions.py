"""`POST /v1/completions`: OpenAI's completions over denoising."""

from typing import Any

from fastapi import APIRouter, Request, Response

from server.http.body import BoundedRoute
from server.replies.denoised import Echo
from server.replies.dialects import CompletionDialect
from server.routes import openai
from server.schemas.answers import CHUNKS, Completion, answers
from server.schemas.openai import CompletionRequest, FillInTheMiddleRequest
from server.service import client_of, service_of

router = APIRouter(route_class=BoundedRoute)

_ANSWERS = answers(Completion, CHUNKS)


@router.post("/v1/completions", response_model=None, responses=_ANSWERS)
async def create_completion(body: CompletionRequest, request: Request) -> dict[str, Any] | Response:
    """Complete a prompt, or each prompt of a list."""
    service = service_of(request)
    service.check_model(body.model)
    # Before work that a refusal would waste.
    service.running.require_room(client_of(request), len(body.prompts) * body.n)
    prompts = [await service.prompts.encode_prompt(prompt) for prompt in body.prompts]
    suffix = [] if body.suffix is None else await service.prompts.encode_segment(body.suffix, "suffix")
    echoes = [Echo(prompt, service.prompts.text_of(prompt)) for prompt in body.prompts] if body.echo else None
    return await openai.answer(CompletionDialect(), body, prompts, request, suffix=suffix, echoes=echoes)


@router.post("/v1/fim/completions", response_model=None, responses=_ANSWERS)
async def fill_in_the_middle(body: FillInTheMiddleRequest, request: Request) -> dict[str, Any] | Response:
    """Fill the gap between a prompt and a suffix."""
    return await create_completion(body, request)
