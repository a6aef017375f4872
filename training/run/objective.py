"""The training objective as a module: a batch in, its share of the optimizer step's loss out.

A module, because DDP and FSDP2 act on a module's forward. The noise is drawn inside, on the model's device, from
coordinates alone: it is the same on every device and however the step was cut into parts.
"""

import torch
from torch import Tensor, nn

from llada_core.diffusion.loss import row_losses
from llada_core.diffusion.noise import Corrupted, corrupt, corruption_draws, noise_levels
from llada_core.model.architectures.llada.network import LLaDAModelLM
from training.data.batches import Batch


class Objective(nn.Module):
    """LLaDA's pre-training and SFT losses (GUIDELINES); they differ in the batch's targets and normaliser alone."""

    def __init__(self, model: LLaDAModelLM, *, mask_id: int, seed: int) -> None:
        super().__init__()
        self.model = model
        self.mask_id = mask_id
        self.seed = seed

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """
        Returns:
            The loss, float32, whose sum over all parts of an optimizer step is the step's loss; for logging, without
            gradient, each row's loss per target token and its noise level t, both float64 [B].
        """
        corrupted, is_target_BL, t_B = corrupt_batch(batch, mask_id=self.mask_id, seed=self.seed)
        is_plain = all(spans == (batch.tokens_BL.shape[1],) for spans in batch.spans)
        losses_B = row_losses(self.model, batch.tokens_BL, corrupted, spans=None if is_plain else batch.spans)
        loss = (losses_B / batch.normalizer_B).sum().float()
        return loss, losses_B.detach() / is_target_BL.sum(dim=1), t_B


def corrupt_batch(batch: Batch, *, mask_id: int, seed: int) -> tuple[Corrupted, Tensor, Tensor]:
    """The noise that a batch meets in its epoch.

    Returns:
        The corrupted batch, which positions are targets (bool [B, L]), and the noise level of each row (float64 [B]).
    """
    length = batch.tokens_BL.shape[1]
    positions_L = torch.arange(length, device=batch.tokens_BL.device)
    starts_B1, stops_B1 = batch.target_starts_B.unsqueeze(1), batch.target_stops_B.unsqueeze(1)
    is_target_BL = (positions_L >= starts_B1) & (positions_L < stops_B1)
    t_B = noise_levels(seed, batch.samples_B, batch.epoch)
    draws_BL = corruption_draws(seed, batch.samples_B, batch.epoch, length)
    return corrupt(batch.tokens_BL, t_B, draws_BL, mask_id=mask_id, maskable_BL=is_target_BL), is_target_BL, t_B
