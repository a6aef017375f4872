"""Likelihoods on the model threads, between the steps of others."""

from collections.abc import Generator, Sequence

import torch

from llada_core.diffusion.likelihood import AnswerScorer, LogLikelihood, summarize
from llada_core.errors import InvalidParameterError
from server.http.api_error import bad_request
from server.state import ServerState


def estimation(
    state: ServerState,
    prompt: Sequence[int],
    completion: Sequence[int],
    *,
    mc_num: int,
    cfg_scale: float,
    seed: int,
) -> Generator[int, None, LogLikelihood]:
    """Work that finds how likely `completion` is after `prompt`; it yields after every forward pass, its tokens."""
    scorer = AnswerScorer(state.model, prompt, completion, mask_id=state.special_tokens.mask_id, cfg_scale=cfg_scale)
    estimates = []
    for estimates_N in scorer.estimate_in_parts(mc_num, seed=seed, max_tokens=state.engine.max_batch_tokens):
        estimates.append(estimates_N)
        yield len(estimates_N) * (len(prompt) + len(completion)) * (2 if cfg_scale else 1)
    return summarize(torch.cat(estimates), num_tokens=len(completion))


def require_scorable(
    state: ServerState,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    completion_field: str,
) -> None:
    """Refuse what has no likelihood: any of `completions` after any of `prompts`.

    Raises:
        APIError, InvalidParameterError: no ids, ids that make no sense, or too many of them.
    """
    for field, sequences in (("prompt", prompts), (completion_field, completions)):
        for ids in sequences:
            if not ids:
                raise InvalidParameterError(f"{field} has 0 tokens; it must have at least 1", field)
            state.special_tokens.require_no_mask(ids, field)
            state.shape.require_token_ids(ids, field)
    prompt_length, completion_length = max(map(len, prompts)), max(map(len, completions))
    if prompt_length + completion_length > state.max_model_len:
        raise bad_request(
            f"prompt has {prompt_length} tokens and {completion_field} {completion_length}; "
            f"together they must be at most max_model_len ({state.max_model_len})",
            "prompt" if prompt_length >= state.max_model_len else completion_field,
            "context_length_exceeded",
        )
