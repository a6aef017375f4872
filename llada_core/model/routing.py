"""The choice of experts for each token, as both interpreters of a description make it.

Shape suffixes besides those of `packed`: X experts, N experts that a token goes through.
"""

import torch
from torch import Tensor


def choose_experts(logits_TX: Tensor, num_chosen: int, bias_X: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Choose the most probable experts of each token, as LLaDA-MoE's published code does.

    Args:
        bias_X: added to the probabilities, and part of the weights.

    Returns:
        The weights of the experts' outputs, float32 [T, N], which are probabilities among all experts and do not add up
        to one; and the experts, int64 [T, N].
    """
    probabilities_TX = logits_TX.softmax(dim=-1, dtype=torch.float32)
    if bias_X is not None:
        probabilities_TX = probabilities_TX + bias_X
    weights_TN, experts_TN = probabilities_TX.topk(num_chosen, dim=-1)
    return weights_TN, experts_TN


def places_by_expert(experts_TN: Tensor, num_experts: int) -> list[tuple[int, Tensor]]:
    """Sort the tokens by expert.

    Returns:
        For each expert that has tokens, its number and its places in the flattened `experts_TN`, ascending.
    """
    experts = experts_TN.flatten()
    counts = experts.bincount(minlength=num_experts).tolist()
    places = experts.argsort(stable=True).split(counts)
    return [(expert, places[expert]) for expert in range(num_experts) if counts[expert]]
