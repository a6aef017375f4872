"""`POST /v1/score`: how likely a completion is after a prompt (API.md section 6)."""

import asyncio
from collections.abc import Iterator
from typing import Any

import torch
from fastapi import APIRouter, Request
from torch import Tensor

from llada_core.diffusion.likelihood import answer_masks, estimate_in_parts, summarize
from llada_core.errors import InvalidParameterError
from server.errors import bad_request, shutting_down, timed_out
from server.schemas import ScoreRequest
from server.sse import while_connected
from server.state import ServerState, seed_of, state_of

router = APIRouter()


@router.post("/v1/score")
async def score(body: ScoreRequest, request: Request) -> dict[str, Any]:
    """Estimate the log-likelihood of a completion."""
    state = state_of(request)
    state.check_model(body.model)
    if state.is_draining:
        raise shutting_down()
    prompt = await state.encode_prompt(body.prompt)
    completion = await state.encode_segment(body.completion, "completion")
    _check(state, prompt, completion)
    seed = seed_of(body)
    parts: list[Tensor] = []

    async def compute() -> None:
        try:
            async with asyncio.timeout(state.settings.request_timeout):
                parts.extend(await state.engine.compute(_estimates(state, body, prompt, completion, seed)))
        except TimeoutError:
            raise timed_out(state.settings.request_timeout) from None

    await while_connected(request, compute())
    found = summarize(torch.cat(parts), num_tokens=len(completion))
    return {
        "log_likelihood": found.value,
        "stderr": found.stderr,
        "num_tokens": found.num_tokens,
        "mc_num": body.mc_num,
        "seed": seed,
        "usage": {
            "prompt_tokens": len(prompt),
            "completion_tokens": len(completion),
            "total_tokens": len(prompt) + len(completion),
            "forward_passes": body.mc_num * (2 if body.cfg_scale else 1),
        },
    }


def _estimates(
    state: ServerState, body: ScoreRequest, prompt: list[int], completion: list[int], seed: int
) -> Iterator[Tensor]:
    """Nothing is computed before a model thread asks for the first part."""
    masks_NL = answer_masks(len(completion), body.mc_num, seed=seed)
    yield from estimate_in_parts(
        state.model,
        prompt,
        completion,
        masks_NL,
        mask_id=state.special_tokens.mask_id,
        cfg_scale=body.cfg_scale,
        max_tokens=state.max_batch_tokens,
    )


def _check(state: ServerState, prompt: list[int], completion: list[int]) -> None:
    for field, ids in (("prompt", prompt), ("completion", completion)):
        if not ids:
            raise InvalidParameterError(f"{field} has 0 tokens; it must have at least 1", field)
        if state.special_tokens.mask_id in ids:
            raise InvalidParameterError(
                f"{field} holds {state.special_tokens.mask_id}, the mask id; it must hold tokens only", field
            )
        state.config.require_token_ids(ids, field)
    if len(prompt) + len(completion) > state.max_model_len:
        raise bad_request(
            f"the prompt has {len(prompt)} tokens and the completion {len(completion)}; "
            f"together they must be at most max_model_len ({state.max_model_len})",
            "completion",
            "context_length_exceeded",
        )
