"""`POST /v1/responses`: OpenAI's responses over denoising. Nothing is stored; no response continues an earlier one."""

from typing import Any

from fastapi import APIRouter, Request, Response

from llada_core.sampling.events import Reporting
from llada_core.text.thinking import ThinkingReader
from server.http.body import BoundedRoute
from server.http.sse import StreamResponse, while_connected
from server.replies.logprobs import TokenNames
from server.replies.responses import ResponseReply
from server.schemas.answers import InputTokens, ResponseObject, answers, events
from server.schemas.conversation import ChatFields
from server.schemas.responses import ResponseRequest
from server.service import client_of, service_of

router = APIRouter(route_class=BoundedRoute)


@router.post(
    "/v1/responses",
    response_model=None,
    responses=answers(ResponseObject, events("with stream: response.created to response.completed", "event", "data")),
)
async def create_response(body: ResponseRequest, request: Request) -> dict[str, Any] | Response:
    """Reply to text or to a conversation."""
    service = service_of(request)
    service.check_model(body.model)
    prompt = await service.prompts.encode_messages(body.messages, ChatFields(), field_name="input")
    canvas = service.canvases.response(
        body,
        prompt,
        constraint=await service.constraints.compiled(body.form),
        reporting=Reporting(num_alternatives=body.num_alternatives or 0),
    )
    (generation,) = service.running.submit([canvas], client_of(request))
    envelope = service.envelope(body, "resp_")
    names = TokenNames(service.prompts.tokenizer)
    thinking = service.prompts.thinking_after(body.messages, ChatFields()) if body.form is None else None
    reader = ThinkingReader(thinking) if thinking else None
    reply = ResponseReply(envelope, body, generation, service.running, names, reader)
    if body.stream:
        return StreamResponse(reply.events(), request, release=reply.release, error_event=reply.error_event)
    return await while_connected(request, reply.completed(), release=reply.release)


@router.post("/v1/responses/input_tokens")
async def count_input_tokens(body: ResponseRequest, request: Request) -> InputTokens:
    """Count the tokens of the prompt that a response would start from."""
    service = service_of(request)
    service.check_model(body.model)
    prompt = await service.prompts.encode_messages(body.messages, ChatFields(), field_name="input")
    return InputTokens(input_tokens=len(prompt))
