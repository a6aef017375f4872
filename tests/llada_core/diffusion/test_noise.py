import pytest
import torch

from llada_core.diffusion.noise import corrupt, corruption_draws, noise_levels, stratified_noise_levels
from tests.llada_core.model.architectures.test_family import network_of

EPOCH = torch.tensor([2])


def test_a_samples_noise_does_not_depend_on_its_batch():
    together = corruption_draws(7, torch.tensor([3, 8, 11]), EPOCH, 20)
    alone = corruption_draws(7, torch.tensor([8]), EPOCH, 12)
    assert torch.equal(together[1, :12], alone[0])
    assert torch.equal(noise_levels(7, torch.tensor([3, 8]), EPOCH)[1:], noise_levels(7, torch.tensor([8]), EPOCH))


def test_seed_epoch_and_sample_each_change_the_noise():
    reference = corruption_draws(7, torch.tensor([8]), EPOCH, 20)
    for other in (
        corruption_draws(6, torch.tensor([8]), EPOCH, 20),
        corruption_draws(7, torch.tensor([9]), EPOCH, 20),
        corruption_draws(7, torch.tensor([8]), torch.tensor([3]), 20),
    ):
        assert not torch.isclose(reference, other).any()


def test_the_share_of_masks_is_the_noise_level():
    tokens_BL = torch.zeros(4, 5000, dtype=torch.long)
    t_B = torch.tensor([0.0, 0.25, 0.5, 1.0])
    corrupted = corrupt(tokens_BL, t_B, corruption_draws(0, torch.arange(4), torch.tensor([0]), 5000), mask_id=9)
    shares_B = corrupted.masked_BL.double().mean(dim=1)
    torch.testing.assert_close(shares_B, corrupted.p_mask_B.double(), atol=0.02, rtol=0)
    assert torch.equal(corrupted.tokens_BL == 9, corrupted.masked_BL)


def test_positions_that_may_not_be_masked_stay():
    maskable_BL = torch.tensor([[False, False, True, True]])
    corrupted = corrupt(torch.arange(4)[None], torch.ones(1), torch.zeros(1, 4), mask_id=9, maskable_BL=maskable_BL)
    assert corrupted.tokens_BL.tolist() == [[0, 1, 9, 9]]


def test_llada2_masks_within_its_range_and_a_row_counts_by_the_mean_of_its_masks():
    training = network_of("llada2_moe", "tiny-mini-like").shape.training
    tokens_BL, draws_BL = torch.zeros(4000, 20, dtype=torch.long), torch.rand(4000, 20)
    maskable_BL = (torch.arange(20) >= 5).expand(4000, 20)
    t_B = torch.tensor([0.0, 1.0]).repeat(2000)
    corrupted = corrupt(tokens_BL, t_B, draws_BL, mask_id=9, maskable_BL=maskable_BL, training=training)
    shares_B = corrupted.masked_BL.sum(dim=1).double() / 15
    assert not corrupted.masked_BL[:, :5].any()
    assert [shares_B[first::2].mean().item() for first in (0, 1)] == pytest.approx([0.3, 0.8], abs=0.01)
    assert torch.equal(corrupted.p_mask_B[shares_B > 0], shares_B[shares_B > 0])
    # Nothing is divided by 0 in a row without masks.
    assert corrupted.p_mask_B.min() > 0 and (shares_B == 0).any()


def test_sdar_masks_and_weighs_as_llada_does():
    trained, llada = (
        network_of(*name).shape.training for name in (("sdar", "tiny-8b-like"), ("illada", "tiny-8b-like"))
    )
    assert trained == llada


def test_stratified_noise_levels_have_one_in_every_interval_in_a_random_order():
    levels_B = stratified_noise_levels(7, 3, 8)
    assert sorted((levels_B * 8).long().tolist()) == list(range(8))
    assert (levels_B * 8).long().tolist() != list(range(8))
    assert torch.equal(levels_B, stratified_noise_levels(7, 3, 8))
    assert not torch.equal(levels_B, stratified_noise_levels(7, 4, 8))


def test_each_stratified_noise_level_is_uniform_by_itself():
    levels_SB = torch.stack([stratified_noise_levels(0, step, 4) for step in range(4000)])
    for deciles in (levels_SB * 10).long().T:
        assert deciles.bincount(minlength=10).min() > 320
    # The mean over a batch varies less than that of independent ones, 1 / 12 / 4.
    assert levels_SB.mean(dim=1).var() < 1 / 12 / 4 / 8
