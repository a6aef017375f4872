"""`POST /v1/denoise`: the denoising states as they happen, and `GET /v1/denoise/{id}` after a broken connection."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response

from llada_core.sampling.canvas import Canvas
from llada_core.sampling.events import Change
from llada_core.sampling.fork import Edits
from llada_core.text.thinking import ThinkingForm
from server.http.api_error import bad_request, stream_is_read, stream_not_found
from server.http.body import BoundedRoute
from server.http.exchange import current_exchange
from server.http.sse import StreamResponse, as_json, while_connected
from server.replies.denoise_events import DenoiseReply
from server.replies.forking import ForkPoint, Parent
from server.replies.parking import DenoisingStream
from server.schemas.answers import Reading, answers, events
from server.schemas.denoise import DenoiseRequest, Fork, MaskGap
from server.service import Service, client_of, service_of

router = APIRouter(route_class=BoundedRoute)

_EVENTS = events("start, one step for each denoising step, then done or error", "event", "data", "id")


@router.post("/v1/denoise", response_class=Response, responses=answers(Reading, _EVENTS))
async def denoise(body: DenoiseRequest, request: Request) -> Response:
    """Stream `start`, every `step` and `done`; or, with `steps` 0, read the distributions at the masks."""
    service = service_of(request)
    service.check_model(body.model)
    parent: Parent | None = None
    inherited: list[Change] = []
    if body.fork is None:
        canvas = await _canvas(service, body)
        has_thinking = body.messages is not None and body.form is None
        thinking = service.prompts.thinking_after(body.messages or (), body) if has_thinking else None
    else:
        point, edits, thinking = await _fork_point(service, body.fork)
        canvas = service.canvases.fork(body, point.canvas, point.frame(), edits)
        parent, inherited = point.parent, point.changes_left(edits)
    if body.is_reading:
        return await _read(service, body, canvas, parent, request)
    (generation,) = service.running.submit([canvas], client_of(request))
    generation.text.inherit(inherited)
    envelope = service.envelope(body, "denoise-")
    stream = DenoisingStream(envelope, generation, current_exchange().key, parent, thinking)
    return _response(service, stream, request, first=0)


@router.get("/v1/denoise/{stream_id}", response_class=Response, responses=answers(None, _EVENTS))
async def resume(stream_id: str, request: Request, last_event_id: Annotated[str, Header()] = "-1") -> Response:
    """Resume a stream after its connection broke, within a minute or, if it was finished, ten: the events after
    `Last-Event-ID`, then the rest.
    """
    service = service_of(request)
    stream = service.parking.find(stream_id, current_exchange().key)
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
    canvas = await _canvas_of_prompt(service, body)
    return service.canvases.from_step(canvas, body.step) if body.step else canvas


async def _canvas_of_prompt(service: Service, body: DenoiseRequest) -> Canvas:
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
    return service.canvases.response(body, prompt, pinned=pinned, constraint=constraint, reporting=body.reporting())


async def _fork_point(service: Service, fork: Fork) -> tuple[ForkPoint, Edits, ThinkingForm | None]:
    """The frame that a fork goes on from, what it changes there, and where thinking may be in the text."""
    stream = service.parking.find(fork.id, current_exchange().key)
    if stream is None:
        raise stream_not_found(fork.id, "fork.id")
    point = stream.fork_point(fork.step)
    written = {
        int(position): await service.prompts.encode_segment(text, f"fork.set.{position}")
        for position, text in fork.set.items()
    }
    return point, Edits(written, fork.remask), stream.thinking


async def _read(
    service: Service, body: DenoiseRequest, canvas: Canvas, parent: Parent | None, request: Request
) -> Response:
    """The distributions at the masks of a canvas."""
    reading = service.reading
    reading.require_readable(canvas)
    envelope = service.envelope(body, "reading-")
    work = service.running.start_work(reading.parts(canvas), client_of(request))
    masks = await while_connected(request, service.running.result_of(work), release=work.cancel)
    service.running.endings.report_choices([], reading.usage(canvas))
    answer = await asyncio.to_thread(lambda: as_json(reading.as_object(envelope, canvas, masks, parent)))
    return Response(answer, media_type="application/json")


def _response(service: Service, stream: DenoisingStream, request: Request, *, first: int) -> StreamResponse:
    service.parking.claim(stream)
    reply = DenoiseReply(stream, service.running, service.parking, service.canvases.vocabulary)
    return StreamResponse(reply.events(first=first), request, release=reply.release, error_event=reply.error_event)
