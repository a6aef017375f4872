"""The choice of experts for each token, as both interpreters of a description make it.

Shape suffixes besides those of `packed`: X experts, N experts that a token goes through, G groups of experts.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from llada_core.model.description import Experts, Groups


def choose_experts(logits_TX: Tensor, experts: Experts, bias_X: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Choose the experts of each token, as the published code of LLaDA-MoE or, by groups, of LLaDA2 does.

    Without groups the most probable ones are chosen; their weights are the probabilities among all experts, which do
    not add up to one, and a bias is part of them.

    Args:
        bias_X: added to the probabilities.

    Returns:
        The weights of the experts' outputs, float32 [T, N], and the experts, int64 [T, N].
    """
    if experts.groups is not None:
        return _choose_by_groups(logits_TX, experts.num_chosen, experts.groups, bias_X)
    probabilities_TX = logits_TX.softmax(dim=-1, dtype=torch.float32)
    if bias_X is not None:
        probabilities_TX = probabilities_TX + bias_X
    weights_TN, experts_TN = probabilities_TX.topk(experts.num_chosen, dim=-1)
    return weights_TN, experts_TN


def _choose_by_groups(
    logits_TX: Tensor, num_chosen: int, groups: Groups, bias_X: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Choose the best experts of the best groups; a group is as good as its best two.

    The bias decides which experts are chosen and is no part of their weights, which add up to `groups.scale`.
    """
    probabilities_TX = logits_TX.float().sigmoid()
    scores_TX = probabilities_TX if bias_X is None else probabilities_TX + bias_X
    scores_TGX = scores_TX.unflatten(-1, (groups.num_groups, -1))
    chosen_TG = scores_TGX.topk(2, dim=-1).values.sum(dim=-1).topk(groups.num_chosen, dim=-1).indices
    is_left_out_TG = torch.ones_like(scores_TGX[..., 0], dtype=torch.bool).scatter(-1, chosen_TG, False)
    scores_TX = scores_TGX.masked_fill(is_left_out_TG.unsqueeze(-1), -torch.inf).flatten(-2)
    experts_TN = scores_TX.topk(num_chosen, dim=-1).indices
    weights_TN = probabilities_TX.gather(-1, experts_TN)
    # As published; sigmoids may all be zero.
    return weights_TN / (weights_TN.sum(dim=-1, keepdim=True) + 1e-20) * groups.scale, experts_TN


def load_balance(logits: Sequence[Tensor], experts: Experts, biases: Sequence[Tensor | None]) -> Tensor:
    """Return how unevenly a batch loads the experts: X Σ f_x P_x, which is N if all are chosen equally often.

    f is the share of tokens that choose an expert, P its mean probability, both over the tokens of all layers (Switch
    Transformers, arXiv:2101.03961, for N experts a token). The gradient flows through P.

    Args:
        logits: the router logits [T, X] of each mixture.
        biases: see `choose_experts`, for each mixture.
    """
    chosen, probabilities = [], []
    for logits_TX, bias_X in zip(logits, biases, strict=True):
        _, experts_TN = choose_experts(logits_TX.detach(), experts, bias_X)
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
