"""The numbers that proposals are ranked by."""

import pytest
import torch

from llada_core.sampling.scores import shannon_entropy


@pytest.mark.parametrize("scale", [0.0, 1.0, 8.0, 60.0])
def test_the_entropy_is_that_of_float64_however_the_logits_are_spread(scale):
    logits_RV = torch.randn(40, 300, generator=torch.Generator().manual_seed(0)) * scale
    logits_RV[:, 7] = -torch.inf
    exact_R = torch.special.entr(logits_RV.double().softmax(dim=1)).sum(dim=1)
    assert torch.allclose(shannon_entropy(logits_RV).double(), exact_R, rtol=1e-6, atol=1e-6)


def test_a_certain_token_has_no_entropy_and_none_is_negative():
    certain_RV = torch.full((1, 300), -torch.inf)
    certain_RV[0, 3] = 5.0
    assert shannon_entropy(certain_RV) < 1e-30
    nearly_RV = torch.zeros(100, 300).index_add_(1, torch.tensor([3]), torch.linspace(10, 120, 100).unsqueeze(1))
    assert (shannon_entropy(nearly_RV) >= 0).all()
