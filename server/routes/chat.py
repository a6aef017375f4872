"""`POST /v1/chat/completions`: OpenAI's chat over denoising."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from llada_core.text.special_tokens import SpecialTokens
from server.replies.denoised import respond
from server.replies.logprobs import ScoredToken, TokenNames, chat_logprobs
from server.schemas import ChatCompletionRequest
from server.schemas.answers import CHUNKS, ChatCompletion, answers
from server.state import state_of

router = APIRouter()


class ChatDialect:
    id_prefix = "chatcmpl"
    object = "chat.completion"
    chunk_object = "chat.completion.chunk"
    has_one_prompt = True

    def content(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text, "refusal": None}}

    def chunk_content(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text}}

    def logprobs(self, tokens: Sequence[ScoredToken], names: TokenNames) -> dict[str, Any]:
        return chat_logprobs(tokens, names)

    def opening(self) -> dict[str, Any]:
        return {"delta": {"role": "assistant", "content": ""}}

    def end_id(self, special_tokens: SpecialTokens) -> int:
        return special_tokens.eos_id if special_tokens.eot_id is None else special_tokens.eot_id


@router.post(
    "/v1/chat/completions",
    response_model=None,
    responses=answers(ChatCompletion, CHUNKS),
)
async def create_chat_completion(body: ChatCompletionRequest, request: Request) -> dict[str, Any] | Response:
    """Reply to a conversation."""
    state = state_of(request)
    state.check_model(body.model)
    prompt = await state.encode_messages(body.messages, body)
    return await respond(ChatDialect(), body, [prompt], request)
