"""Figures of training as sums and counts, which add up over micro-batches, steps and processes.

A figure is float64: [2], a sum and a count, for a number; or [2, K], for the K equal parts of the noise levels.

Shape suffixes: B rows of a batch, K parts of the noise levels.
"""

import torch
from torch import Tensor

from training.evaluation.likelihood_bound import by_level

_NOISE_LEVEL_BINS = 10


def mean_of(values_B: Tensor) -> Tensor:
    """The figure that is the mean over rows."""
    values_B = values_B.detach().double()
    return torch.stack((values_B.sum(), torch.ones_like(values_B).sum()))


def mean_by_level(values_B: Tensor, noise_levels_B: Tensor) -> Tensor:
    """The figure that is the mean over rows in each tenth of the noise levels, which lie in [0, 1]."""
    values_B = values_B.detach().double()
    bins_B = (noise_levels_B * _NOISE_LEVEL_BINS).long().clamp(max=_NOISE_LEVEL_BINS - 1)
    sums_2K = torch.zeros(2, _NOISE_LEVEL_BINS, dtype=torch.float64, device=values_B.device)
    sums_2K[0].index_add_(0, bins_B, values_B)
    sums_2K[1].index_add_(0, bins_B, torch.ones_like(values_B))
    return sums_2K


def reported(figure: Tensor) -> float | dict[str, float]:
    """What is reported of a figure: a number, or a table by the upper end of each part that has rows."""
    return by_level(*figure) if figure.ndim == 2 else float(figure[0] / figure[1])
