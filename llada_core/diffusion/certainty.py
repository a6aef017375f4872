"""Certainty forcing (dParallel, arXiv:2509.26488): a model learns to be sure of its own answers sooner.

A parallel rule commits whatever the model is sure of, so the fewer tokens wait for others, the fewer steps an answer
takes. The model is shown states of answers that it has written: blocks before the active one filled, those after it
masked, and the active one as some step of the sampler found it. It learns all tokens of that block at once, and where
its best guess is right already, a flatter distribution costs as much as a wrong one.

Shape suffixes: B rows, L positions of a row, R masked positions of the batch, V columns of the head.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from llada_core.diffusion.loss import RowLoss, cross_entropy, losses_at_masks
from llada_core.diffusion.noise import Corrupted
from llada_core.model.interface import MaskPredictor

# The commit step of a position that the sampler never wrote: the text had ended before.
UNWRITTEN = -1


@dataclass(frozen=True, slots=True)
class Trajectories:
    """Answers after their prompts, padded on the right, with the steps of the sampler that wrote them.

    Attributes:
        tokens_BL: int64 ids; a canvas has EOS where nothing was written.
        commit_steps_BL: the step that committed each token, int64; UNWRITTEN where none did, and outside the canvas.
        starts_B: the position at which each canvas begins.
        lengths: tokens of each row: prompt and canvas. They are on the host: they decide the shapes.
    """

    tokens_BL: Tensor
    commit_steps_BL: Tensor
    starts_B: Tensor
    lengths: tuple[int, ...]

    def states(
        self, block_draws_B: Tensor, t_B: Tensor, *, block_length: int, mask_id: int, counts_prompt: bool = False
    ) -> Corrupted:
        """Mask each canvas as a step of the sampler found it.

        Args:
            block_draws_B: uniform numbers that choose the active block, among those in which a token was written.
            t_B: uniform numbers that choose the step, among those that committed a token of the block: from the first,
                which finds all of it masked, to the last.
            counts_prompt: blocks are counted from the prompt's first token, as those of a block-causal model are.

        Returns:
            The model's input; the positions of the block that the step or a later one committed; and their share of all
            that were written in the block.
        """
        positions_L = torch.arange(self.tokens_BL.shape[1], device=self.tokens_BL.device)
        starts_B1 = self.starts_B.unsqueeze(1)
        offsets_BL = positions_L - starts_B1
        is_written_BL = self.commit_steps_BL != UNWRITTEN
        blocks_BL = offsets_BL.div(block_length, rounding_mode="floor")
        if counts_prompt:
            blocks_BL = positions_L // block_length - starts_B1 // block_length
        num_blocks_B = torch.where(is_written_BL, blocks_BL, 0).amax(dim=1) + 1
        block_B1 = (block_draws_B * num_blocks_B).long().unsqueeze(1)
        is_learnt_BL = is_written_BL & (blocks_BL == block_B1)
        ranks_BL = _ranks(self.commit_steps_BL, is_learnt_BL)
        num_steps_B = torch.where(is_learnt_BL, ranks_BL, -1).amax(dim=1) + 1
        masked_BL = is_learnt_BL & (ranks_BL >= (t_B * num_steps_B).long().unsqueeze(1))
        lengths_B1 = torch.tensor(self.lengths, device=self.tokens_BL.device).unsqueeze(1)
        # What is right of the block is masked, and so is what no step has written in it.
        is_hidden_BL = (blocks_BL > block_B1) | ((blocks_BL == block_B1) & ~is_written_BL)
        is_hidden_BL &= (offsets_BL >= 0) & (positions_L < lengths_B1)
        tokens_BL = torch.where(masked_BL | is_hidden_BL, mask_id, self.tokens_BL)
        return Corrupted(tokens_BL, masked_BL, masked_BL.sum(dim=1).double() / is_learnt_BL.sum(dim=1))


def _ranks(steps_BL: Tensor, is_counted_BL: Tensor) -> Tensor:
    """Number the different steps of each row from 0, in ascending order; int64 [B, L], only where they are counted."""
    # Below every step: what is not counted comes first.
    sorted_BL, order_BL = torch.where(is_counted_BL, steps_BL, UNWRITTEN).sort(dim=1, stable=True)
    is_new_BL = torch.diff(sorted_BL, dim=1, prepend=torch.full_like(sorted_BL[:, :1], UNWRITTEN)) > 0
    return torch.empty_like(steps_BL).scatter(1, order_BL, is_new_BL.cumsum(dim=1) - 1)


@dataclass(frozen=True, slots=True)
class CertaintyLosses:
    """The loss of each row and its parts: means over the masked positions of the row, float64 [B].

    Attributes:
        losses_B: cross-entropy + weight × entropy where the best guess is right.
        cross_entropies_B: in nats; without gradient, as is what follows.
        entropies_B: in nats, at the temperature, summed where the best guess is right.
        accuracies_B: the share of positions whose best guess is right.
    """

    losses_B: Tensor
    cross_entropies_B: Tensor
    entropies_B: Tensor
    accuracies_B: Tensor


def certainty_losses(
    model: MaskPredictor, trajectories: Trajectories, states: Corrupted, *, weight: float, temperature: float
) -> CertaintyLosses:
    """Return the loss of each row: the mean over its masked positions of cross-entropy + weight × entropy if right.

    dParallel divides the entropies by the number of right guesses, and all of it by the positions of a batch. Here
    every row counts the same, so that the loss does not depend on how a step is divided.

    Args:
        weight: of the entropy; only positions whose best guess is the recorded token have one.
        temperature: of the distribution whose entropy is taken. Below 1 a distribution that is nearly sure counts as
            sure, and the gradient turns to those that are not.
    """
    row_loss = certainty(temperature)
    spans: Sequence[Sequence[int]] = [(length,) for length in trajectories.lengths]
    values_R3 = losses_at_masks(model, trajectories.tokens_BL, states, row_loss, spans=spans)
    counts_B = states.masked_BL.sum(dim=1)
    # Dense, since on a GPU index_add adds in a different order each time.
    means_3B = [
        torch.zeros(states.masked_BL.shape, dtype=torch.float32, device=values_R3.device)
        .masked_scatter(states.masked_BL, values_R)
        .sum(dim=1, dtype=torch.float64)
        / counts_B
        for values_R in values_R3.unbind(dim=1)
    ]
    cross_entropies_B, entropies_B, accuracies_B = means_3B
    losses_B = cross_entropies_B + weight * entropies_B
    return CertaintyLosses(losses_B, cross_entropies_B.detach(), entropies_B.detach(), accuracies_B.detach())


def certainty(temperature: float) -> RowLoss:
    """Return the function from logits to [R, 3]: cross-entropy, entropy if the best guess is right, whether it is."""
    return partial(_certainty, temperature=temperature)


def _certainty(logits_RV: Tensor, targets_R: Tensor, *, temperature: float) -> Tensor:
    is_right_R = (logits_RV.argmax(dim=1) == targets_R).float()
    log_probs_RV = (logits_RV / temperature).log_softmax(dim=1)
    entropies_R = -(log_probs_RV.exp() * log_probs_RV).sum(dim=1)
    return torch.stack((cross_entropy(logits_RV, targets_R), entropies_R * is_right_R, is_right_R), dim=1)
