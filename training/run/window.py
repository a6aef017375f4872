"""The figures of the steps between two records of metrics.jsonl."""

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from training.distributed import World
from training.stages.figures import reported
from training.stages.objective import BatchLoss


@dataclass(frozen=True, slots=True)
class WindowSummary:
    """Figures over all processes, on the CPU; losses and gradient norms have one entry per step.

    Attributes:
        figures: those of the objective, by name.
    """

    losses: Tensor
    gradient_norms: Tensor
    figures: dict[str, float | dict[str, float]]
    seconds: float
    tokens_per_second: int

    @property
    def first_bad_step(self) -> int | None:
        """The index of the first step whose loss or gradient is not finite."""
        is_finite = self.losses.isfinite() & self.gradient_norms.isfinite()
        return None if is_finite.all() else int((~is_finite).nonzero()[0])


@dataclass(slots=True)
class Window:
    """Figures since the last record, kept on the device, since reading them would make every step wait."""

    losses: list[Tensor] = field(default_factory=list)
    gradient_norms: list[Tensor] = field(default_factory=list)
    num_tokens: int = 0
    _figures: dict[str, Tensor] = field(default_factory=dict)
    _started: float = field(init=False)

    def __post_init__(self) -> None:
        self.restart_clock()

    def restart_clock(self) -> None:
        """Exclude the time until now from tokens per second."""
        self._started = time.monotonic()

    def add_figures(self, part: BatchLoss) -> None:
        """Count the objective's figures of a micro-batch."""
        for name, figure in part.figures.items():
            self._figures[name] = self._figures[name] + figure if name in self._figures else figure

    def add_step(self, loss: Tensor, gradient_norm: Tensor, *, num_tokens: int) -> None:
        """Count a step; the loss is this process's share, the gradient norm and tokens are those of all."""
        self.losses.append(loss)
        self.gradient_norms.append(gradient_norm.full_tensor() if isinstance(gradient_norm, DTensor) else gradient_norm)
        self.num_tokens += num_tokens

    def summary(self, world: World) -> WindowSummary:
        """Add up the shares of all processes; every process must call it."""
        losses = world.sum(torch.stack(self.losses)).cpu()
        gradient_norms = torch.stack(self.gradient_norms).cpu()
        figures = {name: reported(world.sum(figure).cpu()) for name, figure in self._figures.items()}
        seconds = time.monotonic() - self._started
        return WindowSummary(losses, gradient_norms, figures, seconds, round(self.num_tokens / seconds))
