"""`POST /v1/denoise`: the denoising states themselves, as they happen (API.md section 5)."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from itertools import count
from typing import Any

from fastapi import APIRouter, Request, Response
from sse_starlette import ServerSentEvent

from server.schemas import DenoiseRequest
from server.sse import event, stream_response
from server.state import Generation, ServerState, state_of, step_object

router = APIRouter()


@router.post("/v1/denoise", response_class=Response)
async def denoise(body: DenoiseRequest, request: Request) -> Response:
    """Stream `start`, every `step` and `done`."""
    state = state_of(request)
    if body.messages is not None:
        prompt = state.encode_messages(body.messages)
    else:
        assert body.prompt is not None
        prompt = state.encode_prompt(body.prompt)
    generation = state.admit(body, prompt, id_prefix="denoise", include_predictions=body.include_predictions)
    start = _start(state, generation)
    return stream_response(_events(state, generation, start), request, error_name="error")


async def _events(state: ServerState, generation: Generation, start: dict[str, Any]) -> AsyncGenerator[ServerSentEvent]:
    ids = count()
    yield event(start, name="start", id_=next(ids))
    async with aclosing(state.steps(generation)) as steps:
        async for timed, _ in steps:
            yield event(step_object(state, timed), name="step", id_=next(ids))
    text = generation.text
    done = {
        "text": text.text,
        "finish_reason": text.finish_reason,
        "usage": generation.usage(),
        "token_ids": text.token_ids,
    }
    yield event(done, name="done", id_=next(ids))


def _start(state: ServerState, generation: Generation) -> dict[str, Any]:
    params = generation.canvas.params
    return {
        "id": generation.id,
        "model": state.settings.model_name,
        "created": generation.created,
        "prompt_tokens": generation.canvas.prompt_length,
        "gen_length": params.gen_length,
        "block_length": params.block_length,
        "steps": params.steps,
        "mask_token_id": state.special_tokens.mask_id,
        "token_ids": list(generation.text.token_ids),
        "generation_params": generation.generation_params(),
    }
