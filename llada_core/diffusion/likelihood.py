"""Monte-Carlo likelihood of an answer after a prompt (LLaDA, `get_log_likelihood.py`; arXiv:2502.09992, equation 6).

Each draw masks x of the answer's L tokens, with x spread evenly over 1 … L, and scores them with weight L / x. This
estimates the bound on log p(answer | prompt) without bias, and with less variance than independent masks.

A block-causal model writes an answer block by block, so its bound is the sum of the blocks', each after the clean ones
before it (Block Diffusion, arXiv:2503.09573). A draw masks some tokens of every block, and all blocks are scored at
once. Every other model writes an answer as one part.

Shape suffixes: N draws, P parts, A answer tokens, R masked positions of a batch of draws, V columns of the head.
"""

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from llada_core.counter_noise import Purpose, uniform
from llada_core.diffusion.guidance import guide, num_passes
from llada_core.errors import InvalidParameterError
from llada_core.model.interface import MaskPredictor
from llada_core.model.kv_cache import KVCache
from llada_core.model.packed import PackedTokens, Rows

# The number of tokens that go through the model at once.
_MAX_TOKENS = 4096


@dataclass(frozen=True, slots=True)
class LogLikelihood:
    """An estimate in nats; `stderr` is None for a single draw."""

    value: float
    stderr: float | None
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Estimates:
    """Estimates of the bound on log p(answer | prompt), in the parts that the model writes one after the other.

    Attributes:
        nats_NP: the estimate of each draw for each part, float64 on the host.
        shares_NP: the share of the part's tokens that the draw masked.
        lengths_P: tokens of each part.
    """

    nats_NP: Tensor
    shares_NP: Tensor
    lengths_P: Tensor

    @property
    def nats_N(self) -> Tensor:
        """The estimate of each draw for the whole answer."""
        return self.nats_NP.sum(dim=1)


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
        InvalidParameterError: an empty answer, or fewer than one draw.
    """
    if not answer:
        raise InvalidParameterError("answer has 0 tokens; it must have at least 1", "answer")
    if mc_num < 1:
        raise InvalidParameterError(f"mc_num is {mc_num}; it must be at least 1", "mc_num")
    scorer = AnswerScorer(model, prompt, answer, mask_id=mask_id, cfg_scale=cfg_scale)
    return summarize(scorer.estimates(scorer.masks(mc_num, seed=seed)).nats_N, num_tokens=len(answer))


def summarize(nats_N: Tensor, *, num_tokens: int) -> LogLikelihood:
    """Return the mean of the draws' estimates and its standard error."""
    stderr = float(nats_N.std() / len(nats_N) ** 0.5) if len(nats_N) > 1 else None
    return LogLikelihood(float(nats_N.mean()), stderr, num_tokens)


def answer_masks(
    length: int, mc_num: int, *, seed: int, draws: range | None = None, part: int = 0, start: int = 0
) -> Tensor:
    """Choose the answer tokens that each draw masks, bool [N, A]: evenly spaced counts, uniform positions.

    Args:
        draws: which of the `mc_num` draws to return; None for all.
        part, start: the number of a part of an answer, and its first token; parts have masks of their own.
    """
    draws_N = torch.arange(mc_num) if draws is None else torch.arange(draws.start, draws.stop)
    first = 1 + int(uniform(seed, Purpose.MASK_COUNT, part) * length)
    # Round halves up: torch.round rounds them to even, which favours even counts and biases the estimate.
    offsets_N = torch.floor(draws_N.double() * length / mc_num + 0.5).long()
    counts_N = (first + offsets_N - 1) % length + 1
    draws_NA = uniform(seed, Purpose.MASK_ORDER, draws_N.unsqueeze(1), torch.arange(start, start + length))
    ranks_NA = draws_NA.argsort(dim=1).argsort(dim=1)
    return ranks_NA < counts_N.unsqueeze(1)


def part_lengths(start: int, length: int, block_length: int | None) -> tuple[int, ...]:
    """Return the tokens of each part of an answer: of each block, counted from the prompt's first token, or all.

    Args:
        start: the answer's first position.
        block_length: None for a model that writes the answer as one part.
    """
    if block_length is None:
        return (length,)
    positions = range(start, start + length)
    return tuple(sum(1 for _ in block) for _, block in groupby(position // block_length for position in positions))


@dataclass(frozen=True, slots=True)
class AnswerScorer:
    """Scores an answer after a prompt under given masks.

    Attributes:
        suffix: what follows the answer, as for a gap in a text. A block-causal model does not see it.
    """

    model: MaskPredictor
    prompt: Sequence[int]
    answer: Sequence[int]
    suffix: Sequence[int] = ()
    _: KW_ONLY
    mask_id: int
    cfg_scale: float = 0.0

    @property
    def part_lengths(self) -> tuple[int, ...]:
        """Tokens of each part of the answer."""
        return part_lengths(len(self.prompt), len(self.answer), self.model.shape.block_length)

    def masks(self, mc_num: int, *, seed: int, draws: range | None = None) -> Tensor:
        """Choose the answer tokens that each draw masks, bool [N, A]; see `answer_masks`."""
        masks, start = [], 0
        for part, length in enumerate(self.part_lengths):
            masks.append(answer_masks(length, mc_num, seed=seed, draws=draws, part=part, start=start))
            start += length
        return torch.cat(masks, dim=1)

    def estimates(self, masks_NA: Tensor, *, max_tokens: int = _MAX_TOKENS) -> Estimates:
        """Return each draw's estimate: Σ over the masked tokens of a part of log p, times its length / masked.

        Args:
            max_tokens: the most tokens of draws that are computed at once; a single draw may exceed it.
        """
        parts = masks_NA.split(self._draws_within(max_tokens))
        log_probs_NA = torch.cat([self._log_probs(part_NA) for part_NA in parts])
        lengths_P = torch.tensor(self.part_lengths)
        sums_NP, counts_NP = (
            torch.stack([part_NL.sum(dim=1) for part_NL in values_NA.split(lengths_P.tolist(), dim=1)], dim=1)
            for values_NA in (log_probs_NA, masks_NA)
        )
        return Estimates(sums_NP * lengths_P / counts_NP, counts_NP / lengths_P.double(), lengths_P)

    def estimate_in_parts(self, mc_num: int, *, seed: int, max_tokens: int = _MAX_TOKENS) -> Iterator[Tensor]:
        """Yield the estimates of `mc_num` draws in parts that are computed at once, float64 [N]."""
        draws_at_once = self._draws_within(max_tokens)
        for first in range(0, mc_num, draws_at_once):
            draws = range(first, min(first + draws_at_once, mc_num))
            yield self.estimates(self.masks(mc_num, seed=seed, draws=draws), max_tokens=max_tokens).nats_N

    def num_tokens(self, num_draws: int) -> int:
        """Return how many tokens go through the model for so many draws at once."""
        return num_passes(self.cfg_scale) * (self._context_length + num_draws * self._window_length)

    @property
    def cache_bytes(self) -> int:
        """The memory of the clean context's keys and values, which are there while draws are computed."""
        return KVCache.num_bytes(self.model.shape, self._context_length, self.model.dtype)

    @property
    def _context_length(self) -> int:
        """Tokens of the clean context that a block-causal model computes once: the blocks before the answer's last."""
        block_length = self.model.shape.block_length
        length = len(self.prompt) + len(self.answer)
        return 0 if block_length is None else (length - 1) // block_length * block_length

    @property
    def _window_length(self) -> int:
        """Tokens of a draw: of a block-causal model the blocks that hold the answer, of others everything."""
        block_length = self.model.shape.block_length
        if block_length is None:
            return len(self.prompt) + len(self.answer) + len(self.suffix)
        return len(self.prompt) % block_length + len(self.answer)

    def _draws_within(self, max_tokens: int) -> int:
        return max(1, max_tokens // (num_passes(self.cfg_scale) * self._window_length))

    @torch.inference_mode()
    def _log_probs(self, masks_NA: Tensor) -> Tensor:
        """Return log p of the masked tokens of each draw, and 0 at the others: float64 [N, A] on the host."""
        device = self.model.device
        prompts = [list(self.prompt)]
        if self.cfg_scale:
            prompts.append([self.mask_id] * len(self.prompt))
        answer_A = torch.tensor(self.answer, device=device)
        masked_NA = masks_NA.to(device)
        noisy_NA = torch.where(masked_NA, self.mask_id, answer_A)
        is_by_block = self.model.shape.block_length is not None
        hidden_states = self._by_block if is_by_block else self._at_once
        hidden = [hidden_states(prompt, noisy_NA, masks_NA) for prompt in prompts]
        logits_RV = self.model.head(torch.cat(hidden)).float()
        if self.cfg_scale:
            conditional_RV, unconditional_RV = logits_RV.chunk(2)
            logits_RV = guide(conditional_RV, unconditional_RV, self.cfg_scale)
        targets_R = answer_A.expand(len(masks_NA), -1)[masked_NA]
        log_probs_R = -F.cross_entropy(logits_RV, targets_R, reduction="none").double()
        return torch.zeros(masks_NA.shape, dtype=torch.float64).masked_scatter(masks_NA, log_probs_R.cpu())

    def _at_once(self, prompt: list[int], noisy_NA: Tensor, masks_NA: Tensor) -> Tensor:
        """Return the hidden states of the masked tokens of each draw, whose positions see all of it: [R, E]."""
        prompt_NL, suffix_NL = (
            torch.tensor(ids, dtype=torch.long, device=noisy_NA.device).expand(len(noisy_NA), -1)
            for ids in (prompt, self.suffix)
        )
        noisy_NL = torch.cat((prompt_NL, noisy_NA, suffix_NL), dim=1)
        packed = PackedTokens(noisy_NL.flatten(), (noisy_NL.shape[1],) * len(noisy_NL))
        return self.model.hidden_states(packed, _rows(masks_NA, before=len(prompt), after=len(self.suffix), at=packed))

    def _by_block(self, prompt: list[int], noisy_NA: Tensor, masks_NA: Tensor) -> Tensor:
        """Return the hidden states of the masked tokens of each draw, whose blocks see clean ones before: [R, E]."""
        model, block_length, length = self.model, self.model.shape.block_length, self._context_length
        assert block_length is not None
        clean_L = torch.tensor([*prompt, *self.answer][:length], dtype=torch.long, device=model.device)
        context = KVCache(model.shape, length, dtype=model.dtype, device=model.device)
        if length:
            packed = PackedTokens(clean_L, (length,), caches=(context,), block_lengths=(block_length,))
            # One row is asked for, of which nothing is read.
            model.hidden_states(packed, Rows(clean_L.new_zeros(1), (1,)))
        num_shared = len(prompt) % block_length
        shared_L = torch.tensor(prompt[len(prompt) - num_shared :], dtype=torch.long, device=model.device)
        noisy_NL = torch.cat((shared_L.expand(len(noisy_NA), -1), noisy_NA), dim=1)
        packed = PackedTokens.after(context, noisy_NL, len(prompt) - num_shared, block_length)
        return model.hidden_states(packed, _rows(masks_NA, before=num_shared, after=0, at=packed))


def _rows(masks_NA: Tensor, *, before: int, after: int, at: PackedTokens) -> Rows:
    """Return the rows of masked tokens in draws that have other tokens before and after the answer."""
    index_R = F.pad(masks_NA, (before, after)).flatten().nonzero().squeeze(1)
    return Rows(index_R.to(at.tokens_T.device), tuple(masks_NA.sum(dim=1).tolist()))
