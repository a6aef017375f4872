"""The bound on the likelihood of an answer, in the parts that a model writes one after the other.

A block-causal model writes blocks, so its bound is the sum of theirs, each after the clean ones before it (Block
Diffusion, arXiv:2503.09573). All blocks are masked and scored at once. Every other model writes an answer as one part.

Shape suffixes: N draws, P parts, L positions of prompt and answer, A those of the answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llada_core.diffusion.likelihood import AnswerScorer, answer_masks
from llada_core.diffusion.loss import masked_cross_entropy
from llada_core.diffusion.noise import Corrupted
from llada_core.model.network import Network

# The number of tokens that go through the model at once.
_MAX_TOKENS = 4096
# Blocks of one length have masks of their own.
_SEEDS_OF_A_BLOCK = 1 << 32


@dataclass(frozen=True, slots=True)
class Scores:
    """Estimates of the bound, float64 on the CPU.

    Attributes:
        nats_NP: the estimate of each draw for each part.
        shares_NP: the share of the part's tokens that the draw masked.
        lengths_P: tokens of each part.
    """

    nats_NP: Tensor
    shares_NP: Tensor
    lengths_P: Tensor


def score(
    model: Network,
    prompt: Sequence[int],
    answer: Sequence[int],
    suffix: Sequence[int],
    *,
    num_draws: int,
    seed: int,
) -> Scores:
    """Score an answer; a block-causal model does not see the suffix."""
    if model.shape.block_length is not None:
        return _score_blocks(model, prompt, answer, model.shape.block_length, num_draws=num_draws, seed=seed)
    masks_NA = answer_masks(len(answer), num_draws, seed=seed)
    scorer = AnswerScorer(model, prompt, answer, suffix, mask_id=model.special_tokens.mask_id)
    nats_N, lengths_P = -scorer.estimate_per_draw(masks_NA), torch.tensor([len(answer)])
    return Scores(nats_N.unsqueeze(1), masks_NA.double().mean(dim=1, keepdim=True), lengths_P)


@torch.inference_mode()
def _score_blocks(
    model: Network, prompt: Sequence[int], answer: Sequence[int], block_length: int, *, num_draws: int, seed: int
) -> Scores:
    blocks_A = torch.arange(len(prompt), len(prompt) + len(answer)) // block_length
    lengths_P = blocks_A.unique_consecutive(return_counts=True)[1]
    masks_NA = torch.cat(
        [
            answer_masks(length, num_draws, seed=seed + number * _SEEDS_OF_A_BLOCK)
            for number, length in enumerate(lengths_P.tolist())
        ],
        dim=1,
    )
    tokens_L = torch.tensor([*prompt, *answer])
    draws_at_once = max(1, _MAX_TOKENS // (2 * len(tokens_L)))
    nats_NA = torch.cat([
        _cross_entropies(model, tokens_L, part_NA) for part_NA in masks_NA.split(draws_at_once)
    ])  # fmt: skip
    sums_NP, counts_NP = (
        torch.stack([part.sum(dim=1) for part in values_NA.double().split(lengths_P.tolist(), dim=1)], dim=1)
        for values_NA in (nats_NA, masks_NA)
    )
    return Scores(sums_NP * lengths_P / counts_NP, counts_NP / lengths_P, lengths_P)


def _cross_entropies(model: Network, tokens_L: Tensor, masks_NA: Tensor) -> Tensor:
    """Return -log p of the masked tokens of each draw, and 0 at the others: float32 [N, A] on the CPU."""
    tokens_NL = tokens_L.expand(len(masks_NA), -1).to(model.device)
    masked_NL = torch.zeros_like(tokens_NL, dtype=torch.bool)
    masked_NL[:, -masks_NA.shape[1] :] = masks_NA.to(model.device)
    noisy_NL = torch.where(masked_NL, model.special_tokens.mask_id, tokens_NL)
    corrupted = Corrupted(noisy_NL, masked_NL, torch.ones(len(masks_NA)))
    nats_R = masked_cross_entropy(model, tokens_NL, corrupted).cpu()
    return torch.zeros(masks_NA.shape).masked_scatter(masks_NA, nats_R)
