"""The objective of distillation as a module: recorded answers in, their share of the optimizer step's loss out.

Shape suffixes: B rows of a batch, L positions of a row.
"""

from dataclasses import dataclass

import torch
from torch import nn

from llada_core.counter_noise import Purpose, uniform
from llada_core.diffusion.certainty import (
    UNWRITTEN,
    CertaintyLosses,
    Trajectories,
    certainty_losses,
)
from llada_core.diffusion.noise import Corrupted
from llada_core.model.network import Network
from training.data.batches import Batch
from training.stages.figures import mean_of
from training.stages.objective import BatchLoss


@dataclass(frozen=True, slots=True)
class Forcing:
    """How a model is taught to be sure; see `llada_core.diffusion.certainty`.

    Attributes:
        block_length: positions of a block, as the answers were written.
        counts_prompt: blocks are counted from the prompt's first token, as those of a block-causal model are.
        weight: of the entropy, beside the cross-entropy.
        temperature: of the distribution whose entropy is lowered.
    """

    block_length: int = 32
    weight: float = 2.0
    temperature: float = 0.5
    counts_prompt: bool = False

    def states(self, batch: Batch, *, mask_id: int, seed: int) -> tuple[Trajectories, Corrupted]:
        """The answers of a batch, and the state of each that belongs to it in its epoch."""
        trajectories = _trajectories(batch)
        blocks_B = uniform(seed, Purpose.BLOCK, batch.samples_B, batch.epochs_B, device=batch.samples_B.device)
        states = trajectories.states(
            blocks_B,
            batch.noise_levels_B,
            block_length=self.block_length,
            mask_id=mask_id,
            counts_prompt=self.counts_prompt,
        )
        return trajectories, states


class CertaintyObjective(nn.Module):
    """Recorded answers, each as a step of the sampler found it."""

    def __init__(self, model: Network, *, forcing: Forcing, seed: int) -> None:
        super().__init__()
        self.model = model
        self._forcing = forcing
        self._seed = seed

    def forward(self, batch: Batch) -> BatchLoss:
        losses = self.losses(batch)
        loss = (losses.losses_B / batch.normalizer_B).sum().float()
        figures = {
            "cross_entropy": losses.cross_entropies_B,
            "entropy": losses.entropies_B,
            "accuracy": losses.accuracies_B,
        }
        return BatchLoss(loss, {name: mean_of(values_B) for name, values_B in figures.items()})

    def losses(self, batch: Batch) -> CertaintyLosses:
        """The loss of each row, and its parts."""
        trajectories, states = self._forcing.states(batch, mask_id=self.model.special_tokens.mask_id, seed=self._seed)
        return certainty_losses(
            self.model, trajectories, states, weight=self._forcing.weight, temperature=self._forcing.temperature
        )


def _trajectories(batch: Batch) -> Trajectories:
    """The rows of a batch, and the commit steps from where they lie behind each canvas."""
    tokens_BL, device = batch.tokens_BL, batch.tokens_BL.device
    positions_L = torch.arange(max(row for row, _ in batch.spans), device=device)
    rows_B1, canvases_B1 = torch.tensor(batch.spans, device=device).split(1, dim=1)
    is_canvas_BL = (positions_L >= batch.target_starts_B.unsqueeze(1)) & (positions_L < rows_B1)
    steps_BL = tokens_BL.gather(1, (positions_L + canvases_B1).clamp(max=tokens_BL.shape[1] - 1))
    return Trajectories(
        tokens_BL[:, : len(positions_L)],
        torch.where(is_canvas_BL, steps_BL, UNWRITTEN),
        batch.target_starts_B,
        tuple(row for row, _ in batch.spans),
    )
