import pytest
import torch

from llada_core.diffusion.context_weights import context_weights
from llada_core.diffusion.loss import row_losses
from llada_core.diffusion.noise import Corrupted
from tests.llada_core.model.architectures.test_family import network_of

P = 0.3


def by_hand(masked, position, start, stop):
    """½ Σ p (1 - p)^(distance - 1) over the visible tokens from `start` to `stop`."""
    seen = [other for other in range(start, stop) if other != position and not masked[other]]
    return sum(0.5 * P * (1 - P) ** (abs(other - position) - 1) for other in seen)


def test_a_token_weighs_what_its_visible_neighbours_give():
    masked_BL = torch.rand(3, 11, generator=torch.Generator().manual_seed(0)) < 0.5
    weights_BL = context_weights(masked_BL, P)
    for row, masked in enumerate(masked_BL.tolist()):
        expected = [by_hand(masked, position, 0, 11) for position in range(11)]
        assert weights_BL[row].tolist() == pytest.approx(expected, rel=1e-5)


def test_tokens_of_other_documents_and_padding_give_nothing():
    masked_BL = torch.tensor([[True, False, False, True, False, False], [False, True, True, False, False, True]])
    weights_BL = context_weights(masked_BL, P, spans=[(2, 3), (4, 2)])
    assert float(weights_BL[0, 0]) == pytest.approx(by_hand(masked_BL[0], 0, 0, 2))
    assert float(weights_BL[0, 3]) == pytest.approx(by_hand(masked_BL[0], 3, 2, 5))
    assert float(weights_BL[1, 1]) == pytest.approx(by_hand(masked_BL[1], 1, 0, 4))
    assert float(weights_BL[1, 5]) == pytest.approx(by_hand(masked_BL[1], 5, 4, 6))


def test_dreams_loss_is_the_weighted_cross_entropy_of_the_shifted_logits():
    network = network_of("dream", "tiny-mha")
    tokens_BL = torch.arange(20).reshape(2, 10) * 3 % 150
    masked_BL = torch.rand(2, 10, generator=torch.Generator().manual_seed(1)) < 0.5
    masked_BL[0, 0] = True
    noisy_BL = torch.where(masked_BL, network.special_tokens.mask_id, tokens_BL)
    losses_B = row_losses(network, tokens_BL, Corrupted(noisy_BL, masked_BL, torch.full((2,), 0.5)))
    logits_BLV = network(noisy_BL).logits
    shifted_BLV = torch.cat((logits_BLV[:, :1], logits_BLV[:, :-1]), dim=1)
    cross_entropy_BL = torch.nn.functional.cross_entropy(shifted_BLV.transpose(1, 2), tokens_BL, reduction="none")
    expected_B = (cross_entropy_BL * context_weights(masked_BL, P) * masked_BL).sum(dim=1)
    torch.testing.assert_close(losses_B.float(), expected_B)
    losses_B.sum().backward()
    assert all(weight.grad is not None for weight in network.parameters())
    network.zero_grad()
