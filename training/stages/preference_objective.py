"""The preference objective as a module: pairs in, their share of the optimizer step's loss out.

The frozen reference lies within it, so that FSDP2 shards it too. It is no part of a checkpoint: a run that resumes
makes it again from what it started from.

Shape suffixes: B pairs, or 2 B answers, the chosen ones first; N draws; L positions of a row.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from llada_core.diffusion.noise import Corrupted
from llada_core.diffusion.preference import (
    Answers,
    Draws,
    PreferenceLoss,
    answer_bounds,
    mask_answers,
    preference_losses,
)
from llada_core.model.network import Network
from training.data.batches import Batch
from training.stages.figures import mean_of
from training.stages.objective import BatchLoss


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the bound on an answer's likelihood is estimated.

    Attributes:
        num_draws: draws for each answer, with a noise level and a mask each.
        stratified: spread the noise levels of an answer's draws evenly over (0, 1).
        block_length: that of the blocks of a block-causal model; None for others.
    """

    num_draws: int = 8
    stratified: bool = False
    block_length: int | None = None

    def of(self, batch: Batch, *, mask_id: int, seed: int) -> tuple[Answers, Draws, Corrupted]:
        """The answers of a batch of pairs, and the draws that belong to them in their epochs."""
        answers = _answers(batch)
        sides_B = torch.arange(2, device=batch.tokens_BL.device).repeat_interleave(len(batch.samples_B))
        draws = Draws.of(
            seed,
            batch.samples_B.repeat(2),
            batch.epochs_B.repeat(2),
            sides_B,
            num_draws=self.num_draws,
            length=answers.tokens_BL.shape[1],
            stratified=self.stratified,
        )
        return answers, draws, mask_answers(answers, draws, mask_id=mask_id, block_length=self.block_length)


class Rewards(NamedTuple):
    """The implicit rewards of pairs: β times the nats by which the policy finds an answer likelier than the reference.

    Attributes:
        chosen_B, rejected_B: float64.
        chosen_nll_B: the policy's bound on the negative log-likelihood of the chosen answer, nats per token, float64.
    """

    chosen_B: Tensor
    rejected_B: Tensor
    chosen_nll_B: Tensor

    @property
    def margins_B(self) -> Tensor:
        return self.chosen_B - self.rejected_B

    @property
    def accuracies_B(self) -> Tensor:
        """1 where the chosen answer has the higher reward, a half where both have the same, as before any step."""
        return (self.margins_B.sign() + 1) / 2


class PreferenceObjective(nn.Module):
    """Pairs compared by policy and reference, which both see the same masks.

    Args:
        reference: a network without trained weights.
    """

    def __init__(
        self,
        model: Network,
        reference: Network,
        *,
        sampling: Sampling,
        beta: float,
        loss: PreferenceLoss,
        rpo_alpha: float,
        seed: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.reference = reference
        self._sampling = sampling
        self._beta = beta
        self._loss: PreferenceLoss = loss
        self._rpo_alpha = rpo_alpha
        self._seed = seed

    def forward(self, batch: Batch) -> BatchLoss:
        rewards = self.rewards(batch)
        loss = (self.losses(rewards) / batch.normalizer_B).sum().float()
        figures = {
            "reward_margin": rewards.margins_B,
            "reward_accuracy": rewards.accuracies_B,
            "chosen_reward": rewards.chosen_B,
            "rejected_reward": rewards.rejected_B,
            "chosen_nll": rewards.chosen_nll_B,
        }
        return BatchLoss(loss, {name: mean_of(values_B) for name, values_B in figures.items()})

    def rewards(self, batch: Batch) -> Rewards:
        """Estimate the rewards of a batch's pairs."""
        answers, _, corrupted = self._sampling.of(batch, mask_id=self.model.special_tokens.mask_id, seed=self._seed)
        # First, as nothing is kept for backward yet.
        with torch.no_grad():
            reference_B = answer_bounds(self.reference, answers, corrupted)
        policy_B = answer_bounds(self.model, answers, corrupted)
        chosen_B, rejected_B = (self._beta * (policy_B - reference_B)).chunk(2)
        num_chosen = len(chosen_B)
        return Rewards(chosen_B, rejected_B, -policy_B[:num_chosen] / answers.num_tokens_B[:num_chosen])

    def losses(self, rewards: Rewards) -> Tensor:
        """The loss of each pair, float64 [B]."""
        losses_B = preference_losses(rewards.margins_B / self._beta, beta=self._beta, kind=self._loss)
        return losses_B + self._rpo_alpha * rewards.chosen_nll_B


def _answers(batch: Batch) -> Answers:
    """The rows of both answers of every pair, from where they lie side by side."""
    lengths = tuple(spans[side] for side in (0, 1) for spans in batch.spans)
    device = batch.tokens_BL.device
    chosen_B = batch.target_stops_B
    starts_B1 = torch.cat((torch.zeros_like(chosen_B), chosen_B)).unsqueeze(1)
    # Past the end of a row there is padding, whose tokens do not matter.
    positions_BL = (starts_B1 + torch.arange(max(lengths), device=device)).clamp(max=batch.tokens_BL.shape[1] - 1)
    tokens_BL = batch.tokens_BL.repeat(2, 1).gather(1, positions_BL)
    return Answers(tokens_BL, batch.target_starts_B.repeat(2), lengths)
