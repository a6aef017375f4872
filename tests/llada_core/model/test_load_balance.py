"""The loss that balances the load of experts."""

import pytest
import torch

from llada_core.model.description import Experts
from llada_core.model.packed import PackedTokens
from llada_core.model.routing import load_balance
from tests.llada_core.model.architectures.test_family import network_of


def test_it_is_the_experts_number_times_shares_times_probabilities():
    experts = Experts(num_experts=3, num_chosen=2, width=4)
    # Two layers of one and two tokens, whose probabilities are these.
    probabilities = [torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([[0.6, 0.1, 0.3], [0.2, 0.7, 0.1]])]
    # Chosen: experts 0 and 1, 0 and 2, 1 and 0.
    shares, means = (3 / 3, 2 / 3, 1 / 3), (1.3 / 3, 1.1 / 3, 0.6 / 3)
    expected = 3 * sum(share * mean for share, mean in zip(shares, means, strict=True))
    loss = load_balance([layer.log() for layer in probabilities], experts, [None, None])
    assert float(loss) == pytest.approx(expected)
    even = load_balance([torch.eye(3) * 1e-6], Experts(num_experts=3, num_chosen=1, width=4), [None])
    assert float(even) == pytest.approx(1, abs=1e-5)


def test_a_network_learns_it_by_its_routers_and_forgets_to_watch_them_afterwards():
    network = network_of("llada_moe", "tiny-7b-like")
    packed = PackedTokens(torch.arange(30), (12, 18))
    with network.balancing() as balance:
        network.hidden_states(packed)
    loss = balance.loss()
    assert loss is not None
    # About N, weighted by router_aux_loss_coef.
    experts = network.blocks[-1].experts
    assert loss.item() == pytest.approx(experts.balance_weight * experts.num_chosen, rel=0.5)
    loss.backward()
    assert network.blocks[0].part("router").weight.grad.any()
    network.zero_grad()
    network.hidden_states(packed)
    assert balance.loss().item() == loss.item()


def test_a_network_without_mixtures_has_none():
    network = network_of("dream", "tiny-mha")
    with network.balancing() as balance:
        network.hidden_states(PackedTokens(torch.arange(5), (5,)))
    assert balance.loss() is None


def test_experts_without_tokens_have_a_gradient_of_zeros_in_training():
    network = network_of("llada_moe", "tiny-7b-like")
    network.hidden_states(PackedTokens(torch.tensor([3]), (1,))).sum().backward()
    blocks = [weight for name, weight in network.named_parameters() if "experts" in name]
    assert blocks and all(weight.grad is not None for weight in blocks)
    assert any(not weight.grad.any() for weight in blocks)
    network.zero_grad()
