"""Dream's weights of masked tokens: the more of its neighbours a token sees, the more it counts.

Dream 7B (arXiv:2508.15487, "context-adaptive token-level noise rescheduling") weighs the loss at position n by
w_n = ½ Σ p (1 - p)^(|n - i| - 1) over the visible positions i, in place of one over the masking probability.

Shape suffixes: B rows, L positions of a row.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def context_weights(masked_BL: Tensor, p: float, *, spans: Sequence[Sequence[int]] | None = None) -> Tensor:
    """Return the weight of every position, float32 [B, L].

    Args:
        p: how fast the influence of a token falls with the distance.
        spans: see `row_losses`: tokens of other parts of a row, and padding, do not count.
    """
    length = masked_BL.shape[1]
    positions_L = torch.arange(length, device=masked_BL.device)
    distances_LL = (positions_L - positions_L.unsqueeze(1)).abs()
    influence_LL = torch.where(distances_LL > 0, 0.5 * p * (1 - p) ** (distances_LL - 1), 0.0)
    visible_BL = (~masked_BL).float()
    if spans is None:
        return visible_BL @ influence_LL
    return torch.stack([
        visible_L @ (influence_LL * _is_same_span(row, length, masked_BL.device))
        for visible_L, row in zip(visible_BL, spans, strict=True)
    ])  # fmt: skip


def _is_same_span(spans: Sequence[int], length: int, device: torch.device) -> Tensor:
    """Return which positions lie in the same part of a row, bool [L, L]; padding lies in none."""
    numbers = [number for number, span in enumerate(spans) for _ in range(span)]
    numbers_L = torch.tensor(numbers + [-1] * (length - len(numbers)), device=device)
    return (numbers_L == numbers_L.unsqueeze(1)) & (numbers_L >= 0)
