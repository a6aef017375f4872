"""Learning from preferences with a diffusion model: the estimator and the losses of VRPO (arXiv:2505.19223).

DPO compares how likely a policy and a reference find two answers. A masked diffusion model only has a bound on that, an
expectation over masks, and an estimate of it varies; the loss is not linear in it, so the variance is also a bias. VRPO
lowers the variance in three ways: several draws for each answer; all of them at noise levels of their own, with one
mask each, since the levels vary most; and the same draws for policy and reference, whose errors then cancel.

A draw masks a number of tokens that is uniform over 1 … L, and weighs them by L / number (arXiv:2502.09992, equation
6): the same bound as with independent masks at level t, without bias, and with less variance. A block-causal model's
bound is the sum of its blocks' (`likelihood`): a draw masks some tokens of every block, each at a level of its own.

Shape suffixes: B answers, N draws for each of them, L positions of a row, K parts of an answer. Rows of draws are
B · N, an answer's draws side by side.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from llada_core.counter_noise import Purpose, uniform
from llada_core.diffusion.loss import row_losses
from llada_core.diffusion.noise import Corrupted
from llada_core.model.interface import MaskPredictor

PreferenceLoss = Literal["dpo", "ipo"]

# Its multiples, taken modulo 1, are spread evenly over (0, 1) however many there are.
_GOLDEN_RATIO = (5**0.5 - 1) / 2


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers after their prompts, padded on the right.

    Attributes:
        starts_B: the position at which each answer begins; it goes on to the end of its row.
        lengths: tokens of each row, prompt included. They are on the host: they decide the shapes.
    """

    tokens_BL: Tensor
    starts_B: Tensor
    lengths: tuple[int, ...]

    @property
    def num_tokens_B(self) -> Tensor:
        """Tokens of each answer, int64 [B]."""
        return torch.tensor(self.lengths, device=self.starts_B.device) - self.starts_B


@dataclass(frozen=True, slots=True)
class Draws:
    """Uniform numbers that decide what is masked.

    Attributes:
        levels_BN: noise levels, which decide how many tokens a draw masks; float64.
        order_BNL: the tokens with the lowest numbers are masked; float64.
    """

    levels_BN: Tensor
    order_BNL: Tensor

    @classmethod
    def of(
        cls,
        seed: int,
        samples_B: Tensor,
        epochs_B: Tensor,
        answers_B: Tensor,
        *,
        num_draws: int,
        length: int,
        stratified: bool = False,
    ) -> "Draws":
        """Draw for each answer, from coordinates: the same however answers are batched.

        Args:
            answers_B: which of its sample's answers each one is.
            stratified: spread an answer's noise levels over (0, 1), one in each of `num_draws` intervals.
        """
        device = samples_B.device
        draws_N = torch.arange(num_draws, device=device)
        coordinates = [part_B.unsqueeze(1) for part_B in (samples_B, epochs_B, answers_B)]
        levels_BN = uniform(seed, Purpose.NOISE_LEVEL, *coordinates, draws_N, device=device)
        if stratified:
            levels_BN = (draws_N + levels_BN) / num_draws
        positions_L = torch.arange(length, device=device)
        coordinates = [part_B1.unsqueeze(2) for part_B1 in coordinates]
        order_BNL = uniform(seed, Purpose.CORRUPTION, *coordinates, draws_N.unsqueeze(1), positions_L, device=device)
        return cls(levels_BN, order_BNL)


def mask_answers(answers: Answers, draws: Draws, *, mask_id: int, block_length: int | None = None) -> Corrupted:
    """Mask some tokens of each part of an answer in every draw.

    Args:
        block_length: the parts of an answer are its tokens in each block of this length, which are counted from the
            prompt's first token; None for an answer that is one part.

    Returns:
        Rows of draws. The weight of a masked position is one over the share of its part that is masked.
    """
    lengths_B = torch.tensor(answers.lengths, device=answers.tokens_BL.device)
    positions_L = torch.arange(answers.tokens_BL.shape[1], device=answers.tokens_BL.device)
    is_answer_BL = (positions_L >= answers.starts_B.unsqueeze(1)) & (positions_L < lengths_B.unsqueeze(1))
    parts_BL, num_parts = torch.zeros_like(answers.tokens_BL), 1
    if block_length is not None:
        parts_BL = torch.where(is_answer_BL, positions_L // block_length - answers.starts_B[:, None] // block_length, 0)
        # As many as a row has, since to count those of the answers would wait for the device.
        num_parts = -(-len(positions_L) // block_length)
    sizes_BK = torch.zeros(len(lengths_B), num_parts, dtype=torch.long, device=lengths_B.device)
    sizes_BK = sizes_BK.scatter_add(1, parts_BL, is_answer_BL.long())
    # A fixed shift of a uniform level is another one, and an answer's blocks have levels far from each other.
    shifts_K = torch.arange(num_parts, device=lengths_B.device) * _GOLDEN_RATIO
    levels_BNK = (draws.levels_BN.unsqueeze(2) + shifts_K) % 1.0
    counts_BNK = torch.minimum((levels_BNK * sizes_BK.unsqueeze(1)).long() + 1, sizes_BK.unsqueeze(1))
    # Part by part, in each by its draws; what is no answer comes last.
    order_BNL = torch.where(is_answer_BL.unsqueeze(1), parts_BL.unsqueeze(1) + draws.order_BNL, num_parts + 1.0)
    firsts_B1L = (sizes_BK.cumsum(dim=1) - sizes_BK).gather(1, parts_BL).unsqueeze(1)
    ranks_BNL = order_BNL.argsort(dim=2).argsort(dim=2) - firsts_B1L
    parts_BNL = parts_BL.unsqueeze(1).expand(order_BNL.shape)
    masked_BNL = is_answer_BL.unsqueeze(1) & (ranks_BNL < counts_BNK.gather(2, parts_BNL))
    tokens_BNL = torch.where(masked_BNL, mask_id, answers.tokens_BL.unsqueeze(1))
    shares_BNK = (counts_BNK / sizes_BK.unsqueeze(1)).double()
    noisy, masked = tokens_BNL.flatten(0, 1), masked_BNL.flatten(0, 1)
    if block_length is None:
        return Corrupted(noisy, masked, shares_BNK.flatten())
    shares_BL = shares_BNK.gather(2, parts_BNL).flatten(0, 1)
    return Corrupted(noisy, masked, torch.ones_like(shares_BL[:, 0]), shares_BL)


def answer_bounds(model: MaskPredictor, answers: Answers, corrupted: Corrupted) -> Tensor:
    """Estimate the bound on log p(answer | prompt) of each answer as the mean over its draws, float64 [B], in nats."""
    num_draws = len(corrupted.p_mask_B) // len(answers.lengths)
    tokens_BL = answers.tokens_BL.repeat_interleave(num_draws, dim=0)
    spans = tuple((length,) for length in answers.lengths for _ in range(num_draws))
    return -row_losses(model, tokens_BL, corrupted, spans=spans).view(-1, num_draws).mean(dim=1)


def preference_losses(margins_B: Tensor, *, beta: float, kind: PreferenceLoss) -> Tensor:
    """Return the loss of each pair.

    `dpo` is the negative log-likelihood of the preference under Bradley and Terry's model (arXiv:2305.18290). `ipo`
    (arXiv:2310.12036) wants a margin of 1 / (2 β) and no more. With an estimated margin its mean is that of the exact
    margin plus the variance of the estimate.

    Args:
        margins_B: by how many nats more than the reference the policy prefers the chosen answer to the rejected one.
        beta: how strongly the policy is held to the reference.
    """
    if kind == "dpo":
        return -F.logsigmoid(beta * margins_B)
    return (margins_B - 1 / (2 * beta)) ** 2
