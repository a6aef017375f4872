"""Likelihoods by the engine, between the steps of others."""

import asyncio
from collections.abc import Iterator

import torch
from torch import Tensor

from llada_core.diffusion.likelihood import LogLikelihood, answer_masks, estimate_in_parts, summarize
from llada_core.errors import InvalidParameterError
from server.errors import bad_request, shutting_down, timed_out
from server.state import ServerState


async def estimate(
    state: ServerState, prompt: list[int], completion: list[int], *, mc_num: int, cfg_scale: float, seed: int
) -> LogLikelihood:
    """How likely `completion` is after `prompt`.

    Raises:
        APIError, InvalidParameterError: ids that make no sense, too many of them, the time limit, a shutdown.
        QueueFullError: too many wait already.
    """
    if state.is_draining:
        raise shutting_down()
    _check(state, prompt, completion)

    def parts() -> Iterator[Tensor]:
        """Nothing is computed before a model thread asks for the first part."""
        yield from estimate_in_parts(
            state.model,
            prompt,
            completion,
            answer_masks(len(completion), mc_num, seed=seed),
            mask_id=state.special_tokens.mask_id,
            cfg_scale=cfg_scale,
            max_tokens=state.max_batch_tokens,
        )

    try:
        async with asyncio.timeout(state.settings.request_timeout):
            estimates_N = torch.cat(await state.engine.compute(parts()))
    except TimeoutError:
        raise timed_out(state.settings.request_timeout) from None
    return summarize(estimates_N, num_tokens=len(completion))


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
