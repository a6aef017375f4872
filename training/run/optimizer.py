"""AdamW, with weight decay on matrices only, its moments in float32 or in the 8 bits of `torchao`; or Muon."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from llada_core.model.network import Network
from training.options.fields import TrainingOptions
from training.run.low_bit import import_for

_BETAS = (0.9, 0.95)


def build_optimizers(model: Network, options: TrainingOptions) -> list[torch.optim.Optimizer]:
    """The optimizers that together update the trainable parameters; weight decay is on matrices, not on the norms.

    Muon (arXiv:2502.16982) updates the matrices of the blocks, AdamW the embedding, the head and the norms. Its updates
    are scaled to the root mean square of AdamW's, so both take the same learning rate.
    """
    updated_by_muon = block_matrices(model) if options.optimizer == "muon" else []
    optimizers: list[torch.optim.Optimizer] = []
    if updated_by_muon:
        optimizers.append(
            torch.optim.Muon(
                updated_by_muon,
                lr=options.learning_rate,
                weight_decay=options.weight_decay,
                adjust_lr_fn="match_rms_adamw",
            )
        )
    taken = {id(parameter) for parameter in updated_by_muon}
    others = [weight for weight in model.parameters() if weight.requires_grad and id(weight) not in taken]
    groups = [
        {"params": [weight for weight in others if weight.ndim >= 2], "weight_decay": options.weight_decay},
        {"params": [weight for weight in others if weight.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if options.optimizer == "adamw_8bit":
        optimizers.append(_adamw_8bit(groups, options.learning_rate))
    elif groups:
        optimizers.append(torch.optim.AdamW(groups, lr=options.learning_rate, betas=_BETAS, fused=True))
    return optimizers


def block_matrices(model: Network) -> list[nn.Parameter]:
    """The trainable matrices of the blocks, adapters included: what Muon updates."""
    weights = (weight for block in model.blocks for weight in block.parameters())
    return [weight for weight in weights if weight.requires_grad and weight.ndim == 2]


def set_learning_rate(optimizers: Iterable[torch.optim.Optimizer], rate: float) -> None:
    """Set the rate of the next step; an optimizer that is compiled holds it in a tensor."""
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
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
