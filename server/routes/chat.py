"""`POST /v1/chat/completions`: OpenAI's chat over denoising."""

from typing import Any

from fastapi import APIRouter, Request, Response

from server.http.body import BoundedRoute
from server.replies.dialects import ChatDialect
from server.routes import openai
from server.schemas.answers import CHUNKS, ChatCompletion, answers
from server.schemas.openai import ChatCompletionRequest
from server.service import service_of

router = APIRouter(route_class=BoundedRoute)


@router.post(
    "/v1/chat/completions",
    response_model=None,
    responses=answers(ChatCompletion, CHUNKS),
)
async def create_chat_completion(body: ChatCompletionRequest, request: Request) -> dict[str, Any] | Response:
    """Reply to a conversation."""
    service = service_of(request)
    service.check_model(body.model)
    prompt = await service.prompts.encode_messages(body.messages, body)
    return await openai.answer(ChatDialect(), body, [prompt], request)
