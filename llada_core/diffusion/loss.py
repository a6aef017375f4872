"""The training objective: cross-entropy at the masked positions, weighted by one over their masking probability.

Pre-training and SFT differ in two inputs only. Pre-training masks anywhere and divides by the number of tokens of the
batch; SFT masks the answer alone and divides each row by its answer's length, EOS padding included, then by the number
of rows (LLaDA, GUIDELINES). Both are one sum with a normaliser per row.

Shape suffixes: B rows, L positions of a row, R masked positions of the batch, V columns of the head.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from llada_core.diffusion.noise import Corrupted
from llada_core.model import LLaDAModelLM, PackedTokens


def denoising_loss(model: LLaDAModelLM, tokens_BL: Tensor, corrupted: Corrupted, normalizer_B: Tensor) -> Tensor:
    """Σ over masked positions of cross-entropy / (p_mask · normalizer), a scalar.

    Args:
        tokens_BL: the clean tokens.
        normalizer_B: what each row's sum is divided by, see `pretrain_normalizer` and `sft_normalizer`. Under gradient
            accumulation it is that of the whole optimizer step, so that the parts add up to the batch's own loss.
    """
    cross_entropy_R = masked_cross_entropy(model, tokens_BL, corrupted)
    weights_B = (1.0 / (corrupted.p_mask_B.double() * normalizer_B)).float()
    return (cross_entropy_R * weights_B.unsqueeze(1).expand(tokens_BL.shape)[corrupted.masked_BL]).sum()


def masked_cross_entropy(model: LLaDAModelLM, tokens_BL: Tensor, corrupted: Corrupted) -> Tensor:
    """-log p(token) at every masked position in row-major order, float32 [R]. No other position meets the head."""
    batch_size, length = tokens_BL.shape
    packed = PackedTokens(corrupted.tokens_BL.flatten(), (length,) * batch_size)
    rows_R = corrupted.masked_BL.flatten().nonzero().squeeze(1)
    logits_RV = model.predict(packed, rows_R).float()
    return F.cross_entropy(logits_RV, tokens_BL.flatten()[rows_R], reduction="none")


def pretrain_normalizer(batch_size: int, length: int) -> Tensor:
    """Every row is divided by the number of tokens of the batch."""
    return torch.full((batch_size,), float(batch_size * length), dtype=torch.float64)


def sft_normalizer(answer_lengths_B: Tensor) -> Tensor:
    """Every row is divided by its own answer's length and by the number of rows.

    Args:
        answer_lengths_B: row length minus prompt length; the EOS padding counts, that is how length is learned.
    """
    return answer_lengths_B.double() * len(answer_lengths_B)
