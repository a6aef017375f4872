"""What a canvas would write next: a token for every row, with its confidence and the score that remasking gives it.

Shape suffixes: R rows (masked positions) of one canvas, V columns of the head (`embedding_size`).

The order is the contract of API.md section 3: logits → `logits_eos_inf` → `logit_bias` → confidence is taken here,
untempered, over all columns → x0 by Gumbel-max among top-k, then top-p, with the mask id and ids past `vocab_size`
banned from x0 alone.
"""

import torch
from torch import Tensor

from llada_core.counter_noise import Purpose, uniform
from llada_core.sampling.canvas import Canvas
from llada_core.sampling.params import GenerationParams
from llada_core.sampling.scores import REMASKING, shannon_entropy


def propose(logits_RV: Tensor, canvas: Canvas, positions_R: Tensor, *, vocab_size: int) -> Tensor:
    """Propose a token at each row of `canvas`.

    Args:
        logits_RV: float32, after guidance; overwritten.
        positions_R: response position of each row, the coordinate of its noise.

    Returns:
        float64 [4 + 2A, R]: token id, confidence, score, and the distribution's entropy where a rule asks for it, else
        0; then the A alternatives that the canvas asks for, ids and probabilities. One tensor, so that it takes one
        copy to the host.
    """
    params, special_tokens = canvas.params, canvas.special_tokens
    if params.logits_eos_inf:
        logits_RV[:, special_tokens.eos_id] = -torch.inf
    for token_id, bias in params.logit_bias.items():
        logits_RV[:, token_id] += bias
    # torch's softmax takes half the time of its logsumexp.
    probabilities_RV = logits_RV.softmax(dim=1)
    is_ending_last = params.confidence_eos_eot_inf and params.remasking != "random"
    # Only what reads the logits after the draw needs them untouched by the ban.
    reads_logits = is_ending_last or params.remasking in ("margin", "entropy") or params.entropy_bound is not None
    candidates_RV = logits_RV.clone() if reads_logits else logits_RV
    for banned_id in canvas.banned_ids:
        candidates_RV[:, banned_id] = -torch.inf
    x0_R = draw(candidates_RV[:, :vocab_size], params, step=canvas.step, positions_R=positions_R)
    alternatives = _alternatives(candidates_RV[:, :vocab_size], probabilities_RV, canvas.num_alternatives)
    if is_ending_last:
        # After x0 is chosen: EOS and EoT may still be proposed, with confidence 0, so they are committed last.
        logits_RV[:, sorted(special_tokens.end_ids)] = -torch.inf
        probabilities_RV = logits_RV.softmax(dim=1)
    confidence_R = probabilities_RV.gather(1, x0_R.unsqueeze(1)).squeeze(1)

    def draw_remasking() -> Tensor:
        return uniform(params.seed, Purpose.REMASKING, canvas.step, positions_R, device=logits_RV.device)

    score_R = REMASKING[params.remasking](logits_RV, confidence_R, draw_remasking)
    entropy_R = torch.zeros_like(score_R) if params.entropy_bound is None else shannon_entropy(logits_RV)
    return torch.stack((x0_R.double(), confidence_R.double(), score_R.double(), entropy_R.double(), *alternatives))


def _alternatives(candidates_RV: Tensor, probabilities_RV: Tensor, number: int) -> list[Tensor]:
    """The ids of the most probable candidates, then their probabilities; a row each."""
    if number == 0:
        return []
    ids_RA = candidates_RV.topk(number, dim=1).indices
    return [*ids_RA.double().unbind(1), *probabilities_RV.gather(1, ids_RA).double().unbind(1)]


def draw(candidates_RV: Tensor, params: GenerationParams, *, step: int, positions_R: Tensor) -> Tensor:
    """A token for each row: the most probable at temperature 0, else a sample from softmax(logits / temperature)."""
    if params.temperature == 0:
        return _argmax(candidates_RV)
    kept_RV = top_p(top_k(candidates_RV, params.top_k), params.top_p, params.temperature)
    columns_V = torch.arange(candidates_RV.shape[1], device=candidates_RV.device)
    draws_RV = uniform(
        params.seed, Purpose.GUMBEL, step, positions_R.unsqueeze(1), columns_V, device=candidates_RV.device
    )
    return gumbel_max(kept_RV, draws_RV, params.temperature)


def _argmax(logits_RV: Tensor) -> Tensor:
    """The column of each row's largest logit, the first of equals."""
    if logits_RV.is_cpu:
        # numpy's is vectorised and takes a tenth of the time of torch's.
        return torch.from_numpy(logits_RV.numpy().argmax(axis=1))
    return logits_RV.argmax(dim=1)


def gumbel_max(logits_RV: Tensor, draws_RV: Tensor, temperature: float) -> Tensor:
    """argmax(logits - T log(-log u)), which samples from softmax(logits / T)."""
    # float64: low-precision Gumbel noise hurts the text (arXiv:2409.02908).
    return (logits_RV.double() - temperature * torch.log(-torch.log(draws_RV))).argmax(dim=1)


def top_k(logits_RV: Tensor, k: int) -> Tensor:
    """All but the k largest logits of a row at −inf; 0 keeps all."""
    if k == 0 or k >= logits_RV.shape[1]:
        return logits_RV
    smallest_kept_R1 = logits_RV.topk(k, dim=1).values[:, -1:]
    return logits_RV.masked_fill(logits_RV < smallest_kept_R1, -torch.inf)


def top_p(logits_RV: Tensor, p: float, temperature: float) -> Tensor:
    """Keep the smallest set of tokens whose tempered probabilities reach p; at least the most probable."""
    if p == 1:
        return logits_RV
    probabilities_RV = (logits_RV.double() / temperature).softmax(dim=1)
    sorted_RV, columns_RV = probabilities_RV.sort(dim=1, descending=True, stable=True)
    is_past_RV = sorted_RV.cumsum(dim=1) - sorted_RV >= p
    return logits_RV.masked_fill(is_past_RV.scatter(1, columns_RV, is_past_RV), -torch.inf)
