"""Practice: the work of a model before a step, on whose outcome the step trains it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from llada_core.text.tokenizer import Tokenizer
from training.data.batches import Batch, StepPlan
from training.distributed import World


@dataclass(frozen=True, slots=True)
class Workplace:
    """The run in which a model practises.

    Attributes:
        output_dir: the folder in which its work may be logged.
    """

    world: World
    tokenizer: Tokenizer
    output_dir: Path
    seed: int


class Practice(Protocol):
    """Lets the model act on the samples of a step, and keeps the outcome for the objective."""

    def is_due(self, plan: StepPlan) -> bool:
        """Whether the outcome of a step's samples is not there yet; the same on every process."""
        ...

    def run(self, step: int, batch: Batch) -> None:
        """Act on this process's samples of a step; all processes call it together, with whole weights.

        Args:
            step: counted from 0.
        """
        ...
