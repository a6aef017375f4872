"""Monte-Carlo likelihood of an answer after a prompt (LLaDA, `get_log_likelihood.py`; arXiv:2502.09992, equation 6).

Each draw masks x of the answer's L tokens, with x spread evenly over 1 … L, and scores them with weight L / x. This
estimates the bound on log p(answer | prompt) without bias, and with less variance than independent masks.

Shape suffixes: N draws, L answer tokens, R masked positions of a batch of draws, V columns of the head.
"""

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from llada_core.counter_noise import Purpose, uniform
from llada_core.diffusion.guidance import guide, num_passes
from llada_core.errors import InvalidParameterError
from llada_core.model.interface import MaskPredictor
from llada_core.model.packed import PackedTokens, Rows

# The number of tokens that go through the model at once.
_MAX_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class LogLikelihood:
    """An estimate in nats; `stderr` is None for a single draw."""

    value: float
    stderr: float | None
    num_tokens: int


def log_likelihood(
    model: MaskPredictor,
    prompt: Sequence[int],
    answer: Sequence[int],
    *,
    mask_id: int,
    mc_num: int = 128,
    cfg_scale: float = 0.0,
    seed: int = 0,
) -> LogLikelihood:
    """Estimate log p(answer | prompt) from `mc_num` draws; only guidance masks the prompt.

    Raises:
        InvalidParameterError: an empty answer, fewer than one draw, or a model that attends block by block.
    """
    if not answer:
        raise InvalidParameterError("answer has 0 tokens; it must have at least 1", "answer")
    if mc_num < 1:
        raise InvalidParameterError(f"mc_num is {mc_num}; it must be at least 1", "mc_num")
    scorer = AnswerScorer(model, prompt, answer, mask_id=mask_id, cfg_scale=cfg_scale)
    return summarize(torch.cat(list(scorer.estimate_in_parts(mc_num, seed=seed))), num_tokens=len(answer))


def summarize(estimates_N: Tensor, *, num_tokens: int) -> LogLikelihood:
    """Return the mean of the draws' estimates and its standard error."""
    stderr = float(estimates_N.std() / len(estimates_N) ** 0.5) if len(estimates_N) > 1 else None
    return LogLikelihood(float(estimates_N.mean()), stderr, num_tokens)


def answer_masks(length: int, mc_num: int, *, seed: int, draws: range | None = None) -> Tensor:
    """Choose the answer tokens that each draw masks, bool [N, L]: evenly spaced counts, uniform positions.

    Args:
        draws: which of the `mc_num` draws to return; None for all.
    """
    draws_N = torch.arange(mc_num) if draws is None else torch.arange(draws.start, draws.stop)
    first = 1 + int(uniform(seed, Purpose.MASK_COUNT, 0) * length)
    # Round halves up: torch.round rounds them to even, which favours even counts and biases the estimate.
    offsets_N = torch.floor(draws_N.double() * length / mc_num + 0.5).long()
    counts_N = (first + offsets_N - 1) % length + 1
    draws_NL = uniform(seed, Purpose.MASK_ORDER, draws_N.unsqueeze(1), torch.arange(length))
    ranks_NL = draws_NL.argsort(dim=1).argsort(dim=1)
    return ranks_NL < counts_N.unsqueeze(1)


@dataclass(frozen=True, slots=True)
class AnswerScorer:
    """Scores an answer after a prompt under given masks; what may follow it is given, as for a gap in a text.

    Raises:
        InvalidParameterError: the model attends block by block, and has another bound on the likelihood.
    """

    model: MaskPredictor
    prompt: Sequence[int]
    answer: Sequence[int]
    suffix: Sequence[int] = ()
    _: KW_ONLY
    mask_id: int
    cfg_scale: float = 0.0

    def __post_init__(self) -> None:
        self.model.shape.require_full_attention("likelihoods", "answer")

    def estimate_per_draw(self, masks_NL: Tensor) -> Tensor:
        """Return each draw's estimate, float64 [N]: Σ over its masked tokens of log p, times L / masked."""
        return torch.cat([self._estimate(part_NL) for part_NL in masks_NL.split(self._draws_within(_MAX_TOKENS))])

    def estimate_in_parts(self, mc_num: int, *, seed: int, max_tokens: int = _MAX_TOKENS) -> Iterator[Tensor]:
        """Yield the estimates of `mc_num` draws in parts, one per forward pass.

        Args:
            max_tokens: the largest forward pass; a single draw may exceed it.
        """
        draws_at_once = self._draws_within(max_tokens)
        for first in range(0, mc_num, draws_at_once):
            draws = range(first, min(first + draws_at_once, mc_num))
            yield self._estimate(answer_masks(len(self.answer), mc_num, seed=seed, draws=draws))

    def _draws_within(self, max_tokens: int) -> int:
        tokens_per_draw = num_passes(self.cfg_scale) * (len(self.prompt) + len(self.answer) + len(self.suffix))
        return max(1, max_tokens // tokens_per_draw)

    @torch.inference_mode()
    def _estimate(self, masks_NL: Tensor) -> Tensor:
        device = self.model.device
        num_draws, length = masks_NL.shape
        counts = tuple(masks_NL.sum(dim=1).tolist()) * num_passes(self.cfg_scale)
        masks_NL = masks_NL.to(device)
        answer_L = torch.tensor(self.answer, device=device)
        prompt_P = torch.tensor(self.prompt, dtype=torch.long, device=device)
        suffix_S = torch.tensor(self.suffix, dtype=torch.long, device=device)
        noisy_NL = torch.where(masks_NL, self.mask_id, answer_L)
        sequences = torch.cat((prompt_P.expand(num_draws, -1), noisy_NL, suffix_S.expand(num_draws, -1)), dim=1)
        if self.cfg_scale:
            no_prompt = sequences.clone()
            no_prompt[:, : len(prompt_P)] = self.mask_id
            sequences = torch.cat((sequences, no_prompt))
        is_row = F.pad(masks_NL, (len(prompt_P), len(suffix_S))).repeat(len(sequences) // num_draws, 1)
        packed = PackedTokens(sequences.flatten(), (sequences.shape[1],) * len(sequences))
        rows = Rows(is_row.flatten().nonzero().squeeze(1), counts)
        logits_RV = self.model.head(self.model.hidden_states(packed, rows)).float()
        if self.cfg_scale:
            conditional_RV, unconditional_RV = logits_RV.chunk(2)
            logits_RV = guide(conditional_RV, unconditional_RV, self.cfg_scale)
        log_probs_R = -F.cross_entropy(logits_RV, answer_L.expand(num_draws, -1)[masks_NL], reduction="none").double()
        sums_N = torch.zeros(num_draws, dtype=torch.float64, device=device)
        sums_N.index_add_(0, masks_NL.nonzero()[:, 0], log_probs_R)
        return (sums_N * length / masks_NL.sum(dim=1)).cpu()
