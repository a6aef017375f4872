"""`POST /v1/completions`: OpenAI's completions over denoising."""

from typing import Any

from fastapi import APIRouter, Request, Response

from server.openai_answer import respond
from server.schemas import CompletionRequest
from server.state import state_of

router = APIRouter()


class CompletionDialect:
    id_prefix = "cmpl"
    object = "text_completion"
    chunk_object = "text_completion"

    def content(self, text: str) -> dict[str, Any]:
        return {"text": text}

    chunk_content = content

    def opening(self) -> None:
        return None


@router.post("/v1/completions", response_model=None)
async def create_completion(body: CompletionRequest, request: Request) -> dict[str, Any] | Response:
    """Complete a prompt."""
    prompt = await state_of(request).encode_prompt(body.prompt)
    return await respond(CompletionDialect(), body, prompt, request)
