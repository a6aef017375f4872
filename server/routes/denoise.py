"""`POST /v1/denoise`: the denoising states as they happen, and `GET /v1/denoise/{id}` after a broken connection."""

from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from llada_core.sampling.canvas import Canvas
from server.http.api_error import bad_request, stream_is_read, stream_not_found
from server.http.body import BoundedRoute
from server.http.exchange import current_exchange
from server.http.sse import StreamResponse
from server.replies.denoise_events import DenoiseReply
from server.replies.parking import DenoisingStream
from server.schemas.answers import answers, events
from server.schemas.denoise import DenoiseRequest, MaskGap
from server.service import Service, client_of, service_of

router = APIRouter(route_class=BoundedRoute)


_ANSWERS = answers(None, events("start, one step for each denoising step, then done or error", "event", "data", "id"))


@router.post("/v1/denoise", response_class=Response, responses=_ANSWERS)
async def denoise(body: DenoiseRequest, request: Request) -> Response:
    """Stream `start`, every `step` and `done`."""
    service = service_of(request)
    service.check_model(body.model)
    canvas = await _canvas(service, body)
    (generation,) = service.running.submit([canvas], client_of(request))
    envelope = service.envelope(body, "denoise-")
    return _response(service, DenoisingStream(envelope, generation), request, first=0)


@router.get("/v1/denoise/{stream_id}", response_class=Response, responses=_ANSWERS)
async def resume(stream_id: str, request: Request, last_event_id: Annotated[str, Header()] = "-1") -> Response:
    """Resume a stream within a minute after its connection broke: the events after `Last-Event-ID`, then the rest."""
    service = service_of(request)
    stream = service.parking.find(stream_id)
    if stream is None:
        raise stream_not_found(stream_id)
    if stream.is_read:
        raise stream_is_read(stream_id)
    newest = len(stream.events) - 1
    if last_event_id not in {str(index) for index in range(-1, newest + 1)}:
        raise bad_request(
            f"Last-Event-ID is {last_event_id!r}; it must be an id of this stream, 0 to {newest}, or absent",
            "Last-Event-ID",
        )
    current_exchange().answer_id = stream_id
    if not stream.is_over:
        service.running.resume(stream.generation)
    return _response(service, stream, request, first=int(last_event_id) + 1)


async def _canvas(service: Service, body: DenoiseRequest) -> Canvas:
    prompts = service.prompts
    if body.canvas is not None:
        segments = [
            segment if isinstance(segment, MaskGap) else await prompts.encode_segment(segment, "canvas")
            for segment in body.canvas
        ]
        return service.canvases.infilling(body, segments)
    if body.messages is not None:
        prompt = await prompts.encode_messages(body.messages, body)
    else:
        assert body.prompt is not None
        prompt = await prompts.encode_prompt(body.prompt)
    pinned = {
        int(position): await prompts.encode_segment(text, "constraints") for position, text in body.constraints.items()
    }
    constraint = await service.constraints.compiled(body.form)
    return service.canvases.response(body, prompt, pinned=pinned, constraint=constraint, reporting=body.reporting)


def _response(service: Service, stream: DenoisingStream, request: Request, *, first: int) -> StreamResponse:
    service.parking.claim(stream)
    reply = DenoiseReply(stream, service.running, service.parking, service.vocabulary)
    return StreamResponse(reply.events(first=first), request, release=reply.release, error_event=reply.error_event)
