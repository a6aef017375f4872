"""The common path of completions and chat completions once their prompts are token ids."""

from collections.abc import Sequence
from typing import Any

from fastapi import Request

from server.canvases import seed_or_random
from server.http.sse import StreamResponse, while_connected
from server.replies.chosen import Candidate, ChoiceParams, ChosenReply, choosing, require_fitting
from server.replies.denoised import Choice, DenoisedReply, Echo
from server.replies.dialects import Dialect
from server.replies.openai_shape import OpenAIShape
from server.schemas.openai import OpenAIFields
from server.service import client_of, service_of


async def answer(
    dialect: Dialect,
    body: OpenAIFields,
    prompts: Sequence[list[int]],
    request: Request,
    *,
    suffix: Sequence[int] = (),
    echoes: Sequence[Echo] | None = None,
) -> dict[str, Any] | StreamResponse:
    """Produce `n` choices after each prompt and answer as `body` asks: as a whole, or streamed.

    Args:
        echoes: for each prompt, the text with which its choices begin.
    """
    service = service_of(request)
    reply: DenoisedReply | ChosenReply
    if body.structured_outputs is None:
        canvases = service.canvases.choices(body, prompts, suffix=suffix)
        generations = service.running.submit(canvases, client_of(request))
        shape = OpenAIShape(service.envelope(body, dialect.id_prefix), dialect, body, prompts)
        choices = [
            Choice(index, generation, echoes[index // body.n] if echoes else None)
            for index, generation in enumerate(generations)
        ]
        reply = DenoisedReply(shape, choices, service.running, service.vocabulary.tokenizer)
    else:
        reply = await _chosen(dialect, body, prompts, body.structured_outputs.choice, request)
    if body.stream:
        return StreamResponse(reply.chunks(), request, release=reply.release)
    return await while_connected(request, reply.completed(), release=reply.release)


async def _chosen(
    dialect: Dialect, body: OpenAIFields, prompts: Sequence[list[int]], texts: Sequence[str], request: Request
) -> ChosenReply:
    service, client = service_of(request), client_of(request)
    service.running.require_room(client, len(prompts) * body.n)
    candidates = [Candidate(text, await service.prompts.encode_segment(text, "structured_outputs")) for text in texts]
    require_fitting(body, candidates)
    for prompt in prompts:
        service.canvases.generation_length(body, len(prompt))
    end_id = dialect.end_id(service.vocabulary.special_tokens)
    endings = [[*candidate.token_ids, end_id] for candidate in candidates]
    service.likelihood.require_scorable(prompts, endings, completion_field="structured_outputs")
    params = ChoiceParams(body.temperature, body.cfg_scale, seed_or_random(body.seed))
    parts = choosing(service.likelihood, prompts, endings, params, choices_per_prompt=body.n)
    work = service.running.start_work(parts, client)
    shape = OpenAIShape(service.envelope(body, dialect.id_prefix), dialect, body, prompts)
    return ChosenReply(shape, candidates, params, work, service.running)
