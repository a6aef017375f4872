"""`POST /v1/completions`: OpenAI's completions over denoising."""

from typing import Any

from fastapi import APIRouter, Request, Response

from server.openai_answer import OpenAIAnswer
from server.schemas import CompletionRequest
from server.sse import stream_response, while_connected
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
    state, dialect = state_of(request), CompletionDialect()
    prompt = state.encode_prompt(body.prompt)
    generation = state.admit(body, prompt, id_prefix=dialect.id_prefix)
    answer = OpenAIAnswer(dialect, state, body, generation, prompt)
    if body.stream:
        return stream_response(answer.chunks(), request)
    await while_connected(request, state.finish(generation))
    return answer.completed()
