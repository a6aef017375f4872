"""AdamW and LLaDA's learning-rate schedule: warm-up, a constant stretch, linear decay (arXiv:2502.09992, B.2)."""

import torch
from torch import nn

WEIGHT_DECAY = 0.1
BETAS = (0.9, 0.95)


def build_optimizer(model: nn.Module, learning_rate: float) -> torch.optim.AdamW:
    """AdamW that decays matrices and leaves the norms' weights alone."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": WEIGHT_DECAY},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=BETAS, fused=True)


def learning_rate_factor(step: int, *, max_steps: int, warmup_steps: int, decay_fraction: float) -> float:
    """The share of the peak learning rate used in optimizer step `step` (from 0); the decay ends at a tenth."""
    warm_up = min(1.0, (step + 1) / max(1, warmup_steps))
    decay_steps = max(1, round(max_steps * decay_fraction))
    progress = max(0.0, (step + 1 - (max_steps - decay_steps)) / decay_steps)
    return warm_up * (1.0 - 0.9 * progress)
