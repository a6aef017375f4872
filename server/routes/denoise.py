"""`POST /v1/denoise`: the denoising states themselves, as they happen (API.md section 5)."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from sse_starlette import ServerSentEvent

from llada_core.sampling.canvas import Canvas
from llada_core.sampling.prepare import Gap
from server.http.api_error import bad_request, stream_is_read, stream_not_found
from server.http.sse import StreamResponse, event
from server.replies.generation import Generation
from server.replies.parking import DenoisingStream, EventName
from server.schemas import DenoiseRequest, MaskGap
from server.schemas.answers import answers, events
from server.state import ServerState, state_of, step_object

router = APIRouter()


_ANSWERS = answers(None, events("start, one step for each denoising step, then done or error", "event", "data", "id"))


@router.post("/v1/denoise", response_class=Response, responses=_ANSWERS)
async def denoise(body: DenoiseRequest, request: Request) -> Response:
    """Stream `start`, every `step` and `done`."""
    state = state_of(request)
    state.check_model(body.model)
    canvas = await _canvas(state, body)
    (generation,) = state.admit(body, [canvas], id_prefix="denoise")
    stream = DenoisingStream(generation)
    return _response(state, stream, request, first=0)


@router.get("/v1/denoise/{stream_id}", response_class=Response, responses=_ANSWERS)
async def resume(stream_id: str, request: Request, last_event_id: Annotated[str, Header()] = "-1") -> Response:
    """Take up a stream within a minute after its connection broke: what came after `Last-Event-ID`, then the rest."""
    state = state_of(request)
    stream = state.parking.find(stream_id)
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
    if not stream.is_over:
        state.readmit(stream.generation)
    return _response(state, stream, request, first=int(last_event_id) + 1)


def _response(state: ServerState, stream: DenoisingStream, request: Request, *, first: int) -> StreamResponse:
    state.parking.take_out(stream)

    def release() -> None:
        # In this order: a stream that can be taken up again must not be running any more.
        state.engine.cancel(stream.generation.request)
        stream.generation.pause()
        state.parking.park(stream)

    def error_event(body: dict[str, Any]) -> ServerSentEvent:
        stream.events.append(("error", body))
        return event(body, name="error", id_=len(stream.events) - 1)

    return StreamResponse(_server_sent(state, stream, first=first), request, release=release, error_event=error_event)


async def _canvas(state: ServerState, body: DenoiseRequest) -> Canvas:
    if body.canvas is not None:
        segments = [
            Gap(segment.mask) if isinstance(segment, MaskGap) else await state.encode_segment(segment, "canvas")
            for segment in body.canvas
        ]
        return state.infilling_canvas(body, segments, include_predictions=body.include_predictions)
    if body.messages is not None:
        prompt = await state.encode_messages(body.messages, body)
    else:
        assert body.prompt is not None
        prompt = await state.encode_prompt(body.prompt)
    constraints = {
        int(position): await state.encode_segment(text, "constraints") for position, text in body.constraints.items()
    }
    return state.canvas(body, prompt, constraints=constraints, include_predictions=body.include_predictions)


async def _server_sent(state: ServerState, stream: DenoisingStream, *, first: int) -> AsyncGenerator[ServerSentEvent]:
    """The events from the id `first` on: those that an earlier connection was sent, then the new ones."""
    for index in range(first, len(stream.events)):
        name, data = stream.events[index]
        yield event(data, name=name, id_=index)
    async with aclosing(_new_events(state, stream)) as events:
        async for name, data in events:
            # Guesses are of the moment and grow with the square of the length: a replay does without them.
            stream.events.append((name, {key: value for key, value in data.items() if key != "predictions"}))
            yield event(data, name=name, id_=len(stream.events) - 1)


async def _new_events(state: ServerState, stream: DenoisingStream) -> AsyncGenerator[tuple[EventName, dict[str, Any]]]:
    """The events that come after those the stream already has."""
    generation = stream.generation
    if stream.is_over:
        return
    if not stream.events:
        yield "start", _start(state, generation)
    async with aclosing(state.steps(generation)) as steps:
        async for timed, _ in steps:
            yield "step", step_object(state, timed)
    yield "done", _done(generation)


def _start(state: ServerState, generation: Generation) -> dict[str, Any]:
    params = generation.canvas.params
    return {
        "id": generation.id,
        "model": state.settings.model_name,
        "created": generation.created,
        "prompt_tokens": generation.canvas.layout.num_prompt_tokens,
        "gen_length": params.gen_length,
        "block_length": params.block_length,
        "steps": params.steps,
        "mask_token_id": state.special_tokens.mask_id,
        "token_ids": list(generation.text.token_ids),
        "generation_params": generation.generation_params(),
    }


def _done(generation: Generation) -> dict[str, Any]:
    text = generation.text
    return {
        "text": text.text,
        "finish_reason": text.finish_reason,
        "usage": generation.usage(),
        "token_ids": text.token_ids,
    }
