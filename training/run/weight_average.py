"""An exponential moving average (EMA) of the trained weights, which many validate and publish instead of the last ones.

The factor grows from 0.1 towards the one asked for, as (1 + n) / (10 + n) after n steps, so that a short run is not an
average of its random start.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """The average of a model's trained weights.

    Args:
        decay: the factor of the average in each update, below 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self._weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self._averages = {name: weight.detach().clone() for name, weight in self._weights.items()}

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The averages by the names of the weights; under FSDP2 this process's shards. Reading into them restores."""
        return self._averages

    def update(self, step: int) -> None:
        """Add the weights after `step` steps, from 1, to the average."""
        decay = min(self._decay, (1 + step) / (10 + step))
        get_ema_multi_avg_fn(decay)(
            list(self._averages.values()), [weight.detach() for weight in self._weights.values()], 0
        )

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """The model with the averages as its weights; after it, bit for bit with its own."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        # One by one: a copy of all weights at once would take as much memory again.
        for name, weight in self._weights.items():
            own = weight.detach().clone()
            weight.copy_(self._averages[name])
            self._averages[name].copy_(own)
