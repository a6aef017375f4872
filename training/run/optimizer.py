"""AdamW and its learning-rate schedules (arXiv:2502.09992, B.2: warm-up, a constant stretch, linear decay)."""

import math
from collections.abc import Callable

import torch
from torch import nn

from training.options.fields import TrainingOptions

_BETAS = (0.9, 0.95)


def build_optimizer(model: nn.Module, options: TrainingOptions) -> torch.optim.AdamW:
    """AdamW over the trainable parameters, with weight decay on matrices but not on the norms' weights."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=_BETAS, fused=True)


def learning_rate_at(step: int, options: TrainingOptions, *, max_steps: int) -> float:
    """The learning rate of optimizer step `step`, from 0."""
    warm_up = min(1.0, (step + 1) / max(1, options.warmup_steps))
    decay = _SCHEDULES[options.lr_schedule](step + 1, options, max_steps)
    return options.learning_rate * warm_up * (1 - (1 - options.min_lr_ratio) * decay)


def _wsd(step: int, options: TrainingOptions, max_steps: int) -> float:
    decay_steps = round(max_steps * options.decay_fraction)
    return max(0.0, step - (max_steps - decay_steps)) / max(1, decay_steps)


def _cosine(step: int, options: TrainingOptions, max_steps: int) -> float:
    progress = (step - options.warmup_steps) / max(1, max_steps - options.warmup_steps)
    return (1 - math.cos(math.pi * min(1.0, max(0.0, progress)))) / 2


# How much of the decay is done at a step, from 0 to 1.
_SCHEDULES: dict[str, Callable[[int, TrainingOptions, int], float]] = {"wsd": _wsd, "cosine": _cosine}
