"""Learning-rate schedules (arXiv:2502.09992, B.2: warm-up, a constant stretch, linear decay; or cosine)."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from training.options.fields import TrainingOptions

_WARMUP_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Schedule:
    """The learning rate of every step of a run, by the names of the options.

    Attributes:
        lr_schedule: `wsd` or `cosine`.
        learning_rate: the highest rate; the last one is `min_lr_ratio` of it.
        decay_fraction: the share of the steps in which `wsd` decays.
    """

    lr_schedule: str
    max_steps: int
    learning_rate: float
    warmup_steps: int
    decay_fraction: float
    min_lr_ratio: float

    @classmethod
    def of(cls, options: TrainingOptions, *, max_steps: int) -> "Schedule":
        """The schedule that the options ask for; a warm-up that is not given takes at most a tenth of the steps."""
        warmup_steps = options.warmup_steps
        if warmup_steps is None:
            warmup_steps = min(options.usual_warmup_steps, int(max_steps * _WARMUP_SHARE))
        return cls(
            options.lr_schedule,
            max_steps,
            options.learning_rate,
            warmup_steps,
            options.decay_fraction,
            options.min_lr_ratio,
        )

    def rate_at(self, step: int) -> float:
        """The learning rate of optimizer step `step`, from 0."""
        warm_up = min(1.0, (step + 1) / max(1, self.warmup_steps))
        decay = _DECAYS[self.lr_schedule](self, step + 1)
        return self.learning_rate * warm_up * (1 - (1 - self.min_lr_ratio) * decay)

    def first_difference(self, other: Mapping[str, Any], *, before: int) -> int | None:
        """The first step before `before` to which another schedule, given by its fields, gives another rate."""
        then = Schedule(**other)
        return next((step for step in range(before) if then.rate_at(step) != self.rate_at(step)), None)


def _wsd(schedule: Schedule, step: int) -> float:
    decay_steps = round(schedule.max_steps * schedule.decay_fraction)
    return max(0.0, step - (schedule.max_steps - decay_steps)) / max(1, decay_steps)


def _cosine(schedule: Schedule, step: int) -> float:
    progress = (step - schedule.warmup_steps) / max(1, schedule.max_steps - schedule.warmup_steps)
    return (1 - math.cos(math.pi * min(1.0, max(0.0, progress)))) / 2


# How much of the decay is done at a step, from 0 to 1.
_DECAYS: dict[str, Callable[[Schedule, int], float]] = {"wsd": _wsd, "cosine": _cosine}
