"""What tests of several stages need."""

import copy

import pytest
import torch


@pytest.fixture
def networks(tiny_network):
    """A policy that has moved a little, and the reference that it moved away from."""
    torch.manual_seed(0)
    policy = copy.deepcopy(tiny_network).requires_grad_(True)
    with torch.no_grad():
        for weight in policy.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    policy.special_tokens = tiny_network.special_tokens
    return policy, tiny_network
