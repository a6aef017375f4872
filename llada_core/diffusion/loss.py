"""The training objective: cross-entropy at the masked positions, weighted by one over their masking probability, or as
the model's authors weigh it. A block-causal model sees the clean blocks before a masked one (`doubled_attention`).

Pre-training and SFT differ in two inputs only. Pre-training masks anywhere and divides by the number of tokens in the
batch; SFT masks only the answer and divides each row by its answer's length, EOS padding included, then by the number
of rows (LLaDA, GUIDELINES). The loss of a batch is thus Σ over rows of `row_losses` / normaliser. Under gradient
accumulation the normaliser is that of the whole optimizer step, so that the parts add up to its loss.

Shape suffixes: B rows, L positions of a row, R masked positions of the batch, V columns of the head.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from llada_core.diffusion.context_weights import context_weights
from llada_core.diffusion.noise import Corrupted
from llada_core.model.interface import MaskPredictor
from llada_core.model.packed import PackedTokens
from llada_core.model.shape import ModelShape

# The number of rows at the head is rounded up to a multiple of this. A new shape at each step fragments the CPU
# allocator's heap: a training process grew by a gigabyte in 300 steps.
_ROWS_MULTIPLE = 64

# Logits in float32 that may exist at once. For LLaDA-8B they take 2 GB at 4,096 rows, and so does each of the three
# copies that the cross-entropy and its gradient need.
_LOGITS_BYTES = 1 << 28

# From logits [R, V] in float32 and the tokens behind the masks [R] to what each row is worth, [R] or [R, K].
RowLoss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits_RV: Tensor, targets_R: Tensor) -> Tensor:
    """Return -log p(target) of each row, [R]: the loss of every objective that is a likelihood."""
    return F.cross_entropy(logits_RV, targets_R, reduction="none")


def row_losses(
    model: MaskPredictor,
    tokens_BL: Tensor,
    corrupted: Corrupted,
    *,
    spans: Sequence[Sequence[int]] | None = None,
) -> Tensor:
    """Return Σ over a row's masked positions of cross-entropy / p_mask, float64 [B].

    A model with a `context_weight` weighs each position by `context_weights` instead.

    Args:
        spans: for each row the lengths of the parts that attend within themselves, from the left. The rest of the
            row is padding, which is not computed and must not be masked. None if a row attends to all of itself.
    """
    cross_entropy_R = masked_cross_entropy(model, tokens_BL, corrupted, spans=spans)
    # A dense sum, since on a GPU index_add adds in a different order each time.
    cross_entropy_BL = torch.zeros(tokens_BL.shape, dtype=torch.float32, device=tokens_BL.device)
    cross_entropy_BL = cross_entropy_BL.masked_scatter(corrupted.masked_BL, cross_entropy_R)
    if corrupted.shares_BL is not None:
        cross_entropy_BL = cross_entropy_BL / corrupted.shares_BL
    if (p := model.shape.training.context_weight) is not None:
        weights_BL = context_weights(corrupted.masked_BL, p, spans=spans)
        return (weights_BL * cross_entropy_BL).sum(dim=1, dtype=torch.float64)
    return cross_entropy_BL.sum(dim=1, dtype=torch.float64) / corrupted.p_mask_B


def masked_cross_entropy(
    model: MaskPredictor,
    tokens_BL: Tensor,
    corrupted: Corrupted,
    *,
    spans: Sequence[Sequence[int]] | None = None,
) -> Tensor:
    """Return -log p(token) at every masked position in row-major order, float32 [R]."""
    return losses_at_masks(model, tokens_BL, corrupted, cross_entropy, spans=spans)


def losses_at_masks(
    model: MaskPredictor,
    tokens_BL: Tensor,
    corrupted: Corrupted,
    row_loss: RowLoss,
    *,
    spans: Sequence[Sequence[int]] | None = None,
) -> Tensor:
    """Return `row_loss` at every masked position in row-major order, float32.

    Only these positions go through the head, see `head_losses`.
    """
    batch_size, length = tokens_BL.shape
    parts = (tokens_BL, corrupted.tokens_BL, corrupted.masked_BL)
    if spans is None:
        lengths: tuple[int, ...] = (length,) * batch_size
        clean_T, noisy_T, masked_T = (part_BL.flatten() for part_BL in parts)
    else:
        lengths_B1 = torch.tensor([[sum(row)] for row in spans], device=tokens_BL.device)
        is_token_BL = torch.arange(length, device=tokens_BL.device) < lengths_B1
        lengths = tuple(span for row in spans for span in row)
        clean_T, noisy_T, masked_T = (part_BL[is_token_BL] for part_BL in parts)
    packed = packed_for_training(model.shape, noisy_T, clean_T, lengths)
    rows_R = masked_T.nonzero().squeeze(1)
    num_rows = len(rows_R)
    padding = (0, -num_rows % _ROWS_MULTIPLE)
    hidden_RE = model.hidden_states(packed)[F.pad(rows_R, padding)]
    return head_losses(model, hidden_RE, F.pad(tokens_BL[corrupted.masked_BL], padding), row_loss)[:num_rows]


def packed_for_training(shape: ModelShape, noisy_T: Tensor, clean_T: Tensor, lengths: tuple[int, ...]) -> PackedTokens:
    """Return sequences end to end as the network computes them in training: with copies for a block-causal model."""
    if shape.block_length is None:
        return PackedTokens(noisy_T, lengths)
    return PackedTokens.doubled(noisy_T, clean_T, lengths, shape.block_length)


def head_losses(model: MaskPredictor, hidden_RE: Tensor, targets_R: Tensor, row_loss: RowLoss) -> Tensor:
    """Return `row_loss` of normed hidden states, float32, without ever holding all logits.

    With a large vocabulary the rows go through the head in parts, whose logits are computed again in backward: a third
    more work at the head, which is a sixteenth of LLaDA-8B. What fits at once is computed once.
    """

    def losses_of(hidden_RE: Tensor, targets_R: Tensor) -> Tensor:
        return row_loss(model.head(hidden_RE).float(), targets_R)

    num_rows = _LOGITS_BYTES // (4 * model.shape.vocab_size) // _ROWS_MULTIPLE * _ROWS_MULTIPLE
    num_rows = max(num_rows, _ROWS_MULTIPLE)
    if len(hidden_RE) <= num_rows:
        return losses_of(hidden_RE, targets_R)
    parts = zip(hidden_RE.split(num_rows), targets_R.split(num_rows), strict=True)
    return torch.cat([checkpoint(losses_of, *part, use_reentrant=False) for part in parts])


def token_normalizer(num_targets_B: Tensor) -> Tensor:
    """Give every token of the batch the same weight: the rule of pre-training.

    Args:
        num_targets_B: positions of each row that may be masked.
    """
    return num_targets_B.double().sum().expand(len(num_targets_B))


def sequence_normalizer(num_targets_B: Tensor) -> Tensor:
    """Give every row the same weight, whatever its length: the rule of SFT.

    Args:
        num_targets_B: each row's answer length, row minus prompt. EOS padding counts: it teaches the model length.
    """
    return num_targets_B.double() * len(num_targets_B)


def row_normalizer(num_targets_B: Tensor) -> Tensor:
    """Divide by the number of rows, for losses that have no length: the rule of preferences."""
    return torch.full_like(num_targets_B, len(num_targets_B), dtype=torch.float64)
