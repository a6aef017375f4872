"""A stage's validation: under which conditions held-out samples are measured, and what that gives."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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
