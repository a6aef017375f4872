"""The choice of experts for each token, as both interpreters of a description make it.

Shape suffixes besides those of `packed`: X experts, N experts that a token goes through.
"""

from collections.abc import Sequence

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


def load_balance(logits: Sequence[Tensor], num_chosen: int, biases: Sequence[Tensor | None]) -> Tensor:
    """Return how unevenly a batch loads the experts: X Σ f_x P_x, which is least, N, if all are chosen equally often.

    f is the share of tokens that choose an expert, P its mean probability, both over the tokens of all layers (Switch
    Transformers, arXiv:2101.03961, for N experts a token). The gradient flows through P.

    Args:
        logits: the router logits [T, X] of each mixture.
        biases: see `choose_experts`, for each mixture.
    """
    chosen, probabilities = [], []
    for logits_TX, bias_X in zip(logits, biases, strict=True):
        _, experts_TN = choose_experts(logits_TX.detach(), num_chosen, bias_X)
        chosen.append(torch.zeros_like(logits_TX, dtype=torch.float32).scatter_(1, experts_TN, 1.0))
        probabilities.append(logits_TX.softmax(dim=-1, dtype=torch.float32))
    shares_X, means_X = torch.cat(chosen).mean(dim=0), torch.cat(probabilities).mean(dim=0)
    return len(shares_X) * (shares_X * means_X).sum()


def places_by_expert(experts_TN: Tensor, num_experts: int, *, with_idle: bool = False) -> list[tuple[int, Tensor]]:
    """Sort the tokens by expert.

    Args:
        with_idle: return the experts without tokens too.

    Returns:
        For each expert that has tokens, its number and its places in the flattened `experts_TN`, ascending.
    """
    experts = experts_TN.flatten()
    counts = experts.bincount(minlength=num_experts).tolist()
    places = experts.argsort(stable=True).split(counts)
    return [(expert, places[expert]) for expert in range(num_experts) if with_idle or counts[expert]]
