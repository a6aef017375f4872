"""`POST /v1/chat/completions`: OpenAI's chat over denoising."""

from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from llada_core.text.thinking import ThinkingForm
from llada_core.text.tokenizer import Tokenizer
from server.http.api_error import bad_request
from server.http.body import BoundedRoute
from server.prompts import Prompts
from server.replies.dialects import ChatDialect
from server.replies.tool_calls import CallReader
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
    tokenizer = service.prompts.required_tokenizer("messages")
    calling = _calling(body, tokenizer)
    prompt = await service.prompts.encode_messages(body.messages, body, body.as_tools())
    thinking = _thinking(body, service.prompts, tokenizer)
    return await openai.answer(ChatDialect(), body, [prompt], request, calling=calling, thinking=thinking)


def _thinking(body: ChatCompletionRequest, prompts: Prompts, tokenizer: Tokenizer) -> ThinkingForm | None:
    """Where thinking may be in the answer; None if there is none, as in an answer whose whole text has a form."""
    if body.form is not None or body.calls == "required":
        return None
    interruption = tokenizer.call_form.opening.strip() if body.calls == "auto" else ""
    return prompts.thinking_after(body.messages, body, interruption)


def _calling(body: ChatCompletionRequest, tokenizer: Tokenizer) -> openai.Calling | None:
    """How the answer calls tools; None if it does not.

    Raises:
        APIError: it may call or not, and the chat template gives the model no way to know.
    """
    if body.calls == "none":
        return None
    if body.calls == "auto" and not tokenizer.knows_tools:
        given = "absent, which with tools means 'auto'" if body.tool_choice is None else "'auto'"
        raise bad_request(
            f"tool_choice is {given}; this model's chat template knows no tools, so it must be none, required or a "
            "function",
            "tool_choice",
        )
    reader = partial(CallReader, tokenizer.call_form, may_be_text=body.calls == "auto")
    return openai.Calling(body.calling_form(tokenizer.call_form), reader)
