"""`POST /v1/chat/completions`: OpenAI's chat over denoising."""

from typing import Any

from fastapi import APIRouter, Request, Response

from server.openai_answer import OpenAIAnswer
from server.schemas import ChatCompletionRequest
from server.sse import stream_response, while_connected
from server.state import state_of

router = APIRouter()


class ChatDialect:
    id_prefix = "chatcmpl"
    object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def content(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def chunk_content(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text}}

    def opening(self) -> dict[str, Any]:
        return {"delta": {"role": "assistant", "content": ""}}


@router.post("/v1/chat/completions", response_model=None)
async def create_chat_completion(body: ChatCompletionRequest, request: Request) -> dict[str, Any] | Response:
    """Reply to a conversation."""
    state, dialect = state_of(request), ChatDialect()
    prompt = state.encode_messages(body.messages)
    generation = state.admit(body, prompt, id_prefix=dialect.id_prefix)
    answer = OpenAIAnswer(dialect, state, body, generation, prompt)
    if body.stream:
        return stream_response(answer.chunks(), request)
    await while_connected(request, state.finish(generation))
    return answer.completed()
