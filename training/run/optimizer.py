"""AdamW, with weight decay on matrices only; its moments in float32, or in the 8 bits of `torchao`."""

from typing import Any

import torch
from torch import nn

from training.options.fields import TrainingOptions
from training.run.low_bit import import_for

_BETAS = (0.9, 0.95)


def build_optimizer(model: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    """AdamW over the trainable parameters, with weight decay on matrices but not on the norms' weights."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if options.optimizer == "adamw_8bit":
        return _adamw_8bit(groups, options.learning_rate)
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=_BETAS, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of the next step; an optimizer that is compiled holds it in a tensor."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def _adamw_8bit(groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
    torchao = import_for("--optimizer adamw_8bit", "torchao.optim")
    if groups[0]["params"][0].device.type == "cpu":
        # Compiling a step takes minutes there, and a compiler.
        torch.compiler.set_stance("force_eager")
    optimizer: torch.optim.Optimizer = torchao.AdamW8bit(groups, lr=learning_rate, betas=_BETAS)
    return optimizer
