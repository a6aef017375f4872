"""`POST /v1/score`: how likely a completion is after a prompt (API.md section 6)."""

import time

from fastapi import APIRouter, Request

from server.http.sse import while_connected
from server.replies.likelihood import estimation, require_scorable
from server.schemas import ScoreRequest
from server.schemas.answers import Score, ScoreUsage
from server.state import seed_of, state_of

router = APIRouter()


@router.post("/v1/score")
async def score(body: ScoreRequest, request: Request) -> Score:
    """Estimate the log-likelihood of a completion."""
    state = state_of(request)
    state.check_model(body.model)
    prompt = await state.encode_prompt(body.prompt)
    completion = await state.encode_segment(body.completion, "completion")
    require_scorable(state, [prompt], [completion], completion_field="completion")
    seed = seed_of(body)
    work = state.start(estimation(state, prompt, completion, mc_num=body.mc_num, cfg_scale=body.cfg_scale, seed=seed))
    found = await while_connected(request, state.result(work, started=time.monotonic()))
    return Score(
        log_likelihood=found.value,
        stderr=found.stderr,
        num_tokens=found.num_tokens,
        mc_num=body.mc_num,
        seed=seed,
        usage=ScoreUsage(
            prompt_tokens=len(prompt),
            completion_tokens=len(completion),
            total_tokens=len(prompt) + len(completion),
            forward_passes=body.mc_num * (2 if body.cfg_scale else 1),
        ),
    )
