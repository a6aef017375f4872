"""`POST /v1/score`: how likely a completion is after a prompt."""

from fastapi import APIRouter, Request

from llada_core.diffusion.guidance import num_passes
from server.canvases import seed_or_random
from server.http.body import BoundedRoute
from server.http.sse import while_connected
from server.replies.usage import Usage
from server.schemas.answers import Score, ScoreUsage
from server.schemas.score import ScoreRequest
from server.service import client_of, service_of

router = APIRouter(route_class=BoundedRoute)


@router.post("/v1/score")
async def score(body: ScoreRequest, request: Request) -> Score:
    """Estimate the log-likelihood of a completion."""
    service = service_of(request)
    service.check_model(body.model)
    prompt = await service.prompts.encode_prompt(body.prompt)
    completion = await service.prompts.encode_segment(body.completion, "completion")
    seed = seed_or_random(body.seed)
    scorer = service.likelihood.scorer(prompt, completion, cfg_scale=body.cfg_scale)
    parts = service.likelihood.estimation(scorer, mc_num=body.mc_num, seed=seed)
    work = service.running.start_work(parts, client_of(request), cache_bytes=scorer.cache_bytes)
    estimate = await while_connected(request, service.running.result_of(work), release=work.cancel)
    usage = Usage(len(prompt), len(completion), 0, body.mc_num * num_passes(body.cfg_scale))
    service.running.endings.report_choices([], usage)
    return Score(
        log_likelihood=estimate.value,
        stderr=estimate.stderr,
        num_tokens=estimate.num_tokens,
        mc_num=body.mc_num,
        seed=seed,
        usage=ScoreUsage(**usage.as_score()),
    )
