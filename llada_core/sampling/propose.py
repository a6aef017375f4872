"""Turn logits into proposals: a token for every masked row, its confidence, and the score that ranks it.

The order of operations (docs/api.md has it too): logits → `logits_eos_inf` → `logit_bias` → `end_thinking` → confidence
is taken here, untempered, over all columns → x0 by Gumbel-max among top-k, then top-p, with the mask id and ids past
`vocab_size` banned from x0 only. Some models score the distribution that is drawn from (`scores_drawn`); confidence is
the same there.

Shape suffixes: R rows (masked positions) of one canvas, V columns of the head (`embedding_size`), A alternatives.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from llada_core.counter_noise import Purpose, uniform
from llada_core.sampling.canvas import Canvas, tokens_before
from llada_core.sampling.constraints.candidates import TokenSet
from llada_core.sampling.end_thinking import Boost, next_boost
from llada_core.sampling.parallel_rules import PARALLEL_RULES
from llada_core.sampling.params import RANDOM_REMASKING, EndThinking, GenerationParams
from llada_core.sampling.proposals import pack
from llada_core.sampling.scores import SCORES, shannon_entropy


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """The proposals at some rows of a canvas, and what could be proposed instead (`constraints.candidates`).

    Attributes:
        packed: the fields of `Proposals`, on the device.
        candidates_RV: the logits of the tokens that may be written.
        allowed_RV: the same with those at −inf that top-k and top-p leave out.
        probabilities_RV: the confidence of every token.
    """

    packed: Tensor
    candidates_RV: Tensor
    allowed_RV: Tensor
    probabilities_RV: Tensor

    def best(self, row: int, tokens: TokenSet) -> int:
        """Return the most probable of these tokens; one that `min_tokens` rules out only where it rules out all."""
        logits_V = self.candidates_RV[row]
        if logits_V.is_cpu:
            return tokens.best(logits_V.numpy())
        return int(tokens.ids_M[int(logits_V[torch.from_numpy(tokens.ids_M).to(logits_V.device)].argmax())])

    def confidence(self, row: int, token_id: int) -> float:
        """Return a token's softmax probability."""
        return float(self.probabilities_RV[row, token_id])

    def logits(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the logits of all tokens, float32 [V], and the same with those at −inf that top-k, top-p or
        `min_tokens` rule out.
        """
        all_V = self.candidates_RV[row].cpu().numpy()
        return all_V, all_V if self.allowed_RV is self.candidates_RV else self.allowed_RV[row].cpu().numpy()


def propose(
    logits_RV: Tensor, canvas: Canvas, positions_R: Tensor, *, vocab_size: int, scores_drawn: bool = False
) -> Tensor:
    """Propose a token at each row of `canvas`: the packed proposals of `draft`."""
    return draft(
        logits_RV, canvas, positions_R, step=canvas.step, vocab_size=vocab_size, scores_drawn=scores_drawn
    ).packed


def draft(
    logits_RV: Tensor,
    canvas: Canvas,
    positions_R: Tensor,
    *,
    step: int,
    vocab_size: int,
    scores_drawn: bool = False,
) -> Draft:
    """Propose a token at each row of `canvas`.

    Args:
        logits_RV: float32, after guidance; overwritten.
        positions_R: the response position of each row; with `step`, the coordinates of its noise.
        scores_drawn: see `PublishedSampler`.
    """
    params, special_tokens = canvas.params, canvas.layout.special_tokens
    if params.logits_eos_inf:
        logits_RV[:, special_tokens.eos_id] = -torch.inf
    for token_id, bias in params.logit_bias.items():
        logits_RV[:, token_id] += bias
    if params.end_thinking is not None and (boost := _boost(params.end_thinking, canvas, step)) is not None:
        logits_RV[:, boost.token_id] += boost.value * (positions_R == boost.position)
    # torch's softmax takes half the time of its logsumexp.
    probabilities_RV = logits_RV.softmax(dim=1)
    scores_drawn = scores_drawn and _alters_the_draw(params)
    candidates_RV = logits_RV.clone() if scores_drawn or _reads_logits_after_the_draw(params) else logits_RV
    for banned_id in canvas.layout.banned_ids:
        candidates_RV[:, banned_id] = -torch.inf
    if params.min_tokens:
        is_early_R = (positions_R < params.min_tokens).nonzero().squeeze(1)
        for end_id in canvas.layout.end_ids:
            candidates_RV[is_early_R, end_id] = -torch.inf
    candidates_RV = candidates_RV[:, :vocab_size]
    allowed_RV = _allowed(candidates_RV, params)
    x0_R = _draw(allowed_RV, params, step=step, positions_R=positions_R)
    alternatives = _most_probable(candidates_RV, probabilities_RV, canvas.reporting.num_alternatives)
    if _commits_ends_last(params):
        # After x0 is chosen: EOS and EoT may still be proposed, with confidence 0, so they are committed last.
        logits_RV[:, sorted(special_tokens.end_ids)] = -torch.inf
        probabilities_RV = logits_RV.softmax(dim=1)
    confidence_R = probabilities_RV.gather(1, x0_R.unsqueeze(1)).squeeze(1)
    scored_RV, scored_R = logits_RV, confidence_R
    if scores_drawn:
        scored_RV = _limited(logits_RV, params) / (params.temperature or 1)
        scored_R = scored_RV.softmax(dim=1).gather(1, x0_R.unsqueeze(1)).squeeze(1)
    scores_R = _score(scored_RV, scored_R, params, step=step, positions_R=positions_R)
    entropies_R = shannon_entropy(logits_RV) if _reads_entropy(params) else torch.zeros_like(scores_R)
    packed = pack(x0_R, confidence_R, scores_R, entropies_R, *alternatives)
    return Draft(packed, candidates_RV, allowed_RV, probabilities_RV)


def _boost(end: EndThinking, canvas: Canvas, step: int) -> Boost | None:
    response_L, active = tokens_before(canvas, step)[canvas.layout.response], canvas.schedule.active
    is_masked = response_L[active.start : active.stop] == canvas.layout.mask_id
    return next_boost(end, response_L, active.start + int(is_masked.argmax()))


def _score(
    logits_RV: Tensor, confidence_R: Tensor, params: GenerationParams, *, step: int, positions_R: Tensor
) -> Tensor:
    """Score each proposal; the highest are committed."""

    def draw_score() -> Tensor:
        return uniform(params.seed, Purpose.REMASKING, step, positions_R, device=logits_RV.device)

    scores_R = SCORES[params.remasking].compute(logits_RV, confidence_R, draw_score)
    if params.remasking_temperature:
        # The highest of these sums are a draw without replacement, in proportion to exp(score / temperature).
        scores_R = scores_R.double() - params.remasking_temperature * torch.log(-torch.log(draw_score()))
    return scores_R


def _alters_the_draw(params: GenerationParams) -> bool:
    """Whether tokens are drawn from another distribution than the model's own."""
    return params.temperature > 0 or params.top_k > 0 or params.top_p < 1


def _reads_logits_after_the_draw(params: GenerationParams) -> bool:
    """Whether scores or confidence are read from the logits as they were before ids were banned from x0."""
    return SCORES[params.remasking].reads_logits or _reads_entropy(params) or _commits_ends_last(params)


def _reads_entropy(params: GenerationParams) -> bool:
    return params.parallel_rule is not None and PARALLEL_RULES[params.parallel_rule[0]].reads_entropy


def _commits_ends_last(params: GenerationParams) -> bool:
    return params.confidence_eos_eot_inf and params.remasking not in RANDOM_REMASKING


def _most_probable(candidates_RV: Tensor, probabilities_RV: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """Return the ids of the most probable candidates and their probabilities, both [R, A]."""
    if number == 0:
        nothing_RA = probabilities_RV[:, :0]
        return nothing_RA.long(), nothing_RA
    ids_RA = candidates_RV.topk(number, dim=1).indices
    return ids_RA, probabilities_RV.gather(1, ids_RA)


def draw(candidates_RV: Tensor, params: GenerationParams, *, step: int, positions_R: Tensor) -> Tensor:
    """Draw a token for each row: the most probable at temperature 0, else a sample of softmax(logits / temperature)."""
    return _draw(_allowed(candidates_RV, params), params, step=step, positions_R=positions_R)


def _allowed(candidates_RV: Tensor, params: GenerationParams) -> Tensor:
    """Return the logits of what may be drawn; at temperature 0, which takes the largest, top-k and top-p change
    nothing.
    """
    return _limited(candidates_RV, params) if params.temperature else candidates_RV


def _limited(candidates_RV: Tensor, params: GenerationParams) -> Tensor:
    """Set the logits that top-k and top-p leave out to −inf."""
    return top_p(top_k(candidates_RV, params.top_k), params.top_p, params.temperature or 1)


def _draw(allowed_RV: Tensor, params: GenerationParams, *, step: int, positions_R: Tensor) -> Tensor:
    if params.temperature == 0:
        return _argmax(allowed_RV)
    columns_V = torch.arange(allowed_RV.shape[1], device=allowed_RV.device)
    draws_RV = uniform(params.seed, Purpose.GUMBEL, step, positions_R.unsqueeze(1), columns_V, device=allowed_RV.device)
    return gumbel_max(allowed_RV, draws_RV, params.temperature)


def _argmax(logits_RV: Tensor) -> Tensor:
    """Return the column of each row's largest logit; on a tie, the first."""
    if logits_RV.is_cpu:
        # numpy's is vectorised and takes a tenth of the time of torch's.
        return torch.from_numpy(logits_RV.numpy().argmax(axis=1))
    return logits_RV.argmax(dim=1)


def gumbel_max(logits_RV: Tensor, draws_RV: Tensor, temperature: float) -> Tensor:
    """Return argmax(logits - T log(-log u)), a sample from softmax(logits / T)."""
    # float64: low-precision Gumbel noise hurts the text (arXiv:2409.02908).
    return (logits_RV.double() - temperature * torch.log(-torch.log(draws_RV))).argmax(dim=1)


def top_k(logits_RV: Tensor, k: int) -> Tensor:
    """Set all but the k largest logits of each row to −inf; k = 0 keeps all."""
    if k == 0 or k >= logits_RV.shape[1]:
        return logits_RV
    smallest_kept_R1 = logits_RV.topk(k, dim=1).values[:, -1:]
    return logits_RV.masked_fill(logits_RV < smallest_kept_R1, -torch.inf)


def top_p(logits_RV: Tensor, p: float, temperature: float) -> Tensor:
    """Keep the smallest set of tokens whose tempered probabilities reach p, and always the most probable."""
    if p == 1:
        return logits_RV
    probabilities_RV = (logits_RV.double() / temperature).softmax(dim=1)
    sorted_RV, columns_RV = probabilities_RV.sort(dim=1, descending=True, stable=True)
    is_past_RV = sorted_RV.cumsum(dim=1) - sorted_RV >= p
    is_past_RV[:, 0] = False
    return logits_RV.masked_fill(is_past_RV.scatter(1, columns_RV, is_past_RV), -torch.inf)
