"""A stage's validation: under which conditions held-out samples are measured, and what that gives."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from llada_core.text.tokenizer import Tokenizer
from training.distributed import World


@dataclass(frozen=True, slots=True)
class Conditions:
    """How held-out samples are measured; the same conditions give the same figures.

    Attributes:
        num_samples: samples to measure, evenly spread over all of them.
        tokenizer: the model's, for stages that measure text.
        is_stopping: called before every sample, on all processes at once; True ends the measurement.
    """

    num_samples: int
    seed: int
    world: World
    is_stopping: Callable[[], bool]
    tokenizer: Tokenizer

    def sums(self, num_held_out: int, measure: Callable[[int], Sequence[float]], *, width: int) -> list[float] | None:
        """Add up figures of samples, of which every process measures its share one by one; None if it was ended.

        Args:
            num_held_out: the samples that there are.
            measure: the figures of a sample by its index, `width` of them.
        """
        num_samples = min(self.num_samples, num_held_out)
        sums = torch.zeros(width, dtype=torch.float64)
        for first in range(0, num_samples, self.world.size):
            if self.is_stopping():
                return None
            place = first + self.world.rank
            if place < num_samples:
                sums += torch.tensor(measure(place * num_held_out // num_samples), dtype=torch.float64)
        return self.world.sum(sums).tolist()


@dataclass(frozen=True, slots=True)
class Measurement:
    """Figures of held-out samples.

    Attributes:
        loss: decides which checkpoint is the best; less is better.
        figures: for metrics.jsonl, by name.
        text: all of it for people.
    """

    loss: float
    figures: dict[str, Any]
    text: str
