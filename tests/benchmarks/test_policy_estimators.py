"""The estimates that the benchmark of policy gradients compares."""

import pytest
import torch

from benchmarks import policy_estimators as estimators


@pytest.mark.parametrize("estimator", [estimators.weighted_coupled, estimators.one_of_two])
def test_the_weights_leave_no_bias_and_the_probabilities_are_one(estimator):
    torch.manual_seed(0)
    log_probs_MT = -torch.rand(len(estimators._MASKS), 3, dtype=torch.float64)
    estimates, probabilities = estimator(log_probs_MT)
    assert float(probabilities.sum()) == pytest.approx(1)
    mean_T = (probabilities.unsqueeze(1) * estimates).sum(dim=0)
    torch.testing.assert_close(mean_T, estimators._share_of_bound(log_probs_MT))


def test_a_token_that_every_mask_finds_equally_likely_is_estimated_exactly():
    log_probs_MT = torch.full((len(estimators._MASKS), 2), -1.5, dtype=torch.float64)
    for estimator in (estimators.one_step, estimators.coupled):
        estimates, probabilities = estimator(log_probs_MT)
        torch.testing.assert_close((probabilities.unsqueeze(1) * estimates).sum(dim=0), log_probs_MT[0])
