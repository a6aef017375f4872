"""The forward process, from text to partly masked text (arXiv:2502.09992, section 2.2).

Shape suffixes: B rows of a batch, L positions of a row.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from llada_core.counter_noise import Purpose, uniform
from llada_core.model.published_training import LLADA_TRAINING, PublishedTraining


@dataclass(frozen=True, slots=True)
class Corrupted:
    """A batch after the forward process.

    Attributes:
        tokens_BL: the model's input; masked positions hold the mask id.
        masked_BL: which positions were masked; the loss is taken at these only.
        p_mask_B: the probability with which the positions of each row were masked, or the share of them that was:
            a masked position weighs one over it.
        shares_BL: for rows of parts that were masked by themselves, the share of each position's part that was: a
            masked position weighs one over it besides. None for rows of one part.
    """

    tokens_BL: Tensor
    masked_BL: Tensor
    p_mask_B: Tensor
    shares_BL: Tensor | None = None


def noise_levels(seed: int, samples_B: Tensor, epochs_B: Tensor) -> Tensor:
    """Draw the noise level t ~ U(0, 1) of each sample in its epoch, float64 [B]."""
    return uniform(seed, Purpose.NOISE_LEVEL, samples_B, epochs_B, device=samples_B.device)


def stratified_noise_levels(seed: int, step: int, batch_size: int) -> Tensor:
    """Draw noise levels that are spread evenly over (0, 1), one in each of `batch_size` intervals; float64 [B].

    Each one is U(0, 1) alone, so the loss keeps its mean, and over a batch it varies less. This is the low-discrepancy
    sampler of MDLM (arXiv:2406.07524).
    """
    places_B = torch.arange(batch_size)
    # Rows may be sorted by length: which row gets which interval is drawn.
    intervals_B = uniform(seed, Purpose.STRATUM, step, places_B).argsort().argsort()
    return (intervals_B + uniform(seed, Purpose.NOISE_LEVEL, step, -1 - places_B)) / batch_size


def corruption_draws(seed: int, samples_B: Tensor, epochs_B: Tensor, length: int) -> Tensor:
    """Draw the uniform numbers that decide which positions are masked, float64 [B, L], however samples are batched."""
    positions_L = torch.arange(length, device=samples_B.device)
    samples_B1, epochs_B1 = samples_B.unsqueeze(1), epochs_B.unsqueeze(1)
    return uniform(seed, Purpose.CORRUPTION, samples_B1, epochs_B1, positions_L, device=samples_B.device)


def corrupt(
    tokens_BL: Tensor,
    t_B: Tensor,
    draws_BL: Tensor,
    *,
    mask_id: int,
    maskable_BL: Tensor | None = None,
    training: PublishedTraining = LLADA_TRAINING,
) -> Corrupted:
    """Mask each position independently with probability p, which is (1 - eps) t + eps for LLaDA (GUIDELINES).

    Args:
        t_B: noise level of each row, in [0, 1].
        draws_BL: uniform numbers; a position is masked where its draw is below p.
        maskable_BL: positions that may be masked; None for all. SFT excludes the prompt.
        training: the range of p, from its value at t = 0 to that at t = 1, and what a masked position weighs.
    """
    p_mask_B = training.mask_probability(t_B)
    masked_BL = draws_BL < p_mask_B.unsqueeze(1)
    if maskable_BL is None:
        maskable_BL = torch.ones_like(masked_BL)
    masked_BL &= maskable_BL
    if training.weighs_share:
        # A row without masks has no loss, whatever it is divided by.
        p_mask_B = masked_BL.sum(dim=1).clamp(min=1).double() / maskable_BL.sum(dim=1)
    return Corrupted(torch.where(masked_BL, mask_id, tokens_BL), masked_BL, p_mask_B)
