"""The denoising objective as a module: a batch in, its share of the optimizer step's loss out.

It is a module because DDP and FSDP2 act on a module's forward. The noise is drawn inside, on the model's device, from
coordinates only: it is the same on every device and however the step was divided.

Shape suffixes: B rows of a batch, L positions of a row.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from llada_core.diffusion.loss import row_losses
from llada_core.diffusion.noise import Corrupted, corrupt, corruption_draws
from llada_core.model.network import Network
from llada_core.model.published_training import LLADA_TRAINING, PublishedTraining
from training.data.batches import Batch
from training.stages.figures import mean_by_level, mean_of


class BatchLoss(NamedTuple):
    """The loss of a part of an optimizer step. A tuple: DDP and FSDP2 look for tensors in what forward returns.

    Attributes:
        loss: float32; summed over all parts of a step it is the step's loss.
        figures: what metrics.jsonl reports beside it, by name, as `training.stages.figures` has it; without gradient.
    """

    loss: Tensor
    figures: Mapping[str, Tensor]


class Objective(nn.Module):
    """LLaDA's pre-training and SFT losses (GUIDELINES), which differ only in the batch's targets and normaliser.

    The model's shape says what its own authors do differently: attention block by block, other weights. How much is
    masked is the stage's to say (`noise`), since a run may choose it.

    A mixture of experts also learns to balance their load. That loss is a batch's own: that of a step is the mean of
    its parts', by their share in the step.
    """

    def __init__(self, model: Network, *, mask_id: int, seed: int, noise: PublishedTraining) -> None:
        super().__init__()
        self.model = model
        self.mask_id = mask_id
        self.seed = seed
        # Not `training`: every module has an attribute of that name.
        self.noise = noise

    def forward(self, batch: Batch) -> BatchLoss:
        corrupted, is_target_BL, p_B = corrupt_batch(batch, mask_id=self.mask_id, seed=self.seed, training=self.noise)
        is_one_span = all(spans == (batch.tokens_BL.shape[1],) for spans in batch.spans)
        with self.model.balancing() as balance:
            losses_B = row_losses(self.model, batch.tokens_BL, corrupted, spans=None if is_one_span else batch.spans)
        loss = (losses_B / batch.normalizer_B).sum().float()
        num_targets_B = is_target_BL.sum(dim=1)
        figures = {"loss_by_noise_level": mean_by_level(losses_B / num_targets_B, p_B)}
        if (load := balance.loss()) is not None:
            loss = loss + load * (num_targets_B / batch.normalizer_B).sum().float()
            figures["load_balance_loss"] = mean_of(load.expand(len(num_targets_B)))
        return BatchLoss(loss, figures)


def corrupt_batch(
    batch: Batch, *, mask_id: int, seed: int, training: PublishedTraining = LLADA_TRAINING
) -> tuple[Corrupted, Tensor, Tensor]:
    """Apply the noise that belongs to the rows of a batch in their epochs.

    Returns:
        The corrupted batch, which positions are targets (bool [B, L]), and with which probability those of each row
        were masked (float64 [B]).
    """
    length = batch.tokens_BL.shape[1]
    positions_L = torch.arange(length, device=batch.tokens_BL.device)
    starts_B1, stops_B1 = batch.target_starts_B.unsqueeze(1), batch.target_stops_B.unsqueeze(1)
    is_target_BL = (positions_L >= starts_B1) & (positions_L < stops_B1)
    t_B = batch.noise_levels_B
    draws_BL = corruption_draws(seed, batch.samples_B, batch.epochs_B, length)
    corrupted = corrupt(batch.tokens_BL, t_B, draws_BL, mask_id=mask_id, maskable_BL=is_target_BL, training=training)
    return corrupted, is_target_BL, training.mask_probability(t_B)
