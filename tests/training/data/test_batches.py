import pytest
import torch

from llada_core.diffusion.noise import noise_levels
from tests.training.fake_samples import EOS, batches_of, samples_of
from training.data.batches import NORMALIZERS, Batching, BatchPlanner, RowLayout


def pad_to_the_longest(rows):
    length = int(rows.lengths_B.max())
    return RowLayout(torch.full_like(rows.lengths_B, length), length)


def planner(samples, loss_norm="sequence", **options):
    options = {"batch_size": 4, "seed": 0, "eos_id": EOS, **options}
    return BatchPlanner(samples, Batching(**options), pad_to_the_longest, NORMALIZERS[loss_norm])


def batches(samples, count, **options):
    return batches_of(planner(samples, **options), count)


@pytest.mark.parametrize("group_by_length", [False, True])
def test_an_epoch_visits_every_sample_once_and_the_next_in_another_order(group_by_length):
    two_epochs = batches(samples_of(*range(2, 42)), 20, group_by_length=group_by_length)
    seen = [index for batch in two_epochs for index in batch.samples_B.tolist()]
    assert sorted(seen[:40]) == sorted(seen[40:]) == list(range(40))
    assert seen[:40] != seen[40:]


def test_a_part_of_a_batch_is_padded_and_normalised_as_the_whole():
    whole_planner = planner(samples_of(3, 9, 5, 7))
    plan = whole_planner.plan(0)
    whole = whole_planner.collate(plan, slice(None))
    parts = [whole_planner.collate(plan, slice(start, start + 2)) for start in (0, 2)]
    for name in ("samples_B", "tokens_BL", "normalizer_B", "target_stops_B"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in parts]))


def test_a_plan_knows_its_rows_and_tokens_before_any_token_is_read():
    plan = planner(samples_of(3, 9, 5, 7)).plan(0)
    assert (plan.num_rows, plan.num_tokens) == (4, 36)


def padding_share(**options):
    """The share of padding in an epoch, with samples as different in length as answers are."""
    epoch = batches(samples_of(*([4] * 40 + [30] * 40)), 20, **options)
    return sum(int((batch.tokens_BL == EOS).sum()) for batch in epoch) / sum(b.tokens_BL.numel() for b in epoch)


def test_batches_are_random_so_that_most_short_rows_are_followed_by_padding_to_learn_from():
    assert padding_share() > 0.3


def test_batches_grouped_by_length_hold_rows_of_similar_length():
    assert padding_share(group_by_length=True) == 0


def test_fewer_samples_than_a_batch_still_make_one():
    assert batches(samples_of(3, 4), 2)[1].epochs_B.tolist() == [1, 1]


def test_the_loss_norm_decides_what_has_equal_weight():
    lengths, starts = torch.tensor([9.0] * 4), torch.ones(4)
    (batch,) = batches(samples_of(3, 9, 5, 7), 1)
    assert batch.normalizer_B.tolist() == ((lengths - starts) * 4).tolist()
    (batch,) = batches(samples_of(3, 9, 5, 7), 1, loss_norm="token")
    assert batch.normalizer_B.tolist() == [32.0] * 4


def test_the_longest_samples_are_drawn_as_often_as_others():
    four_epochs = batches(samples_of(*range(2, 152)), 4 * 50, batch_size=32)
    seen = [index for batch in four_epochs for index in batch.samples_B.tolist()]
    counts = [seen.count(index) for index in range(150)]
    assert min(counts) > 20
    assert sum(counts[-22:]) > 0.8 * sum(counts[:22])


def test_stratified_noise_is_the_steps_and_independent_noise_the_samples():
    samples = samples_of(*range(2, 42))
    independent, stratified = (batches(samples, 5, batch_size=8, stratified_noise=chosen) for chosen in (False, True))
    for plain, spread in zip(independent, stratified, strict=True):
        assert torch.equal(plain.samples_B, spread.samples_B)
        assert torch.equal(plain.noise_levels_B, noise_levels(0, plain.samples_B, plain.epochs_B))
        assert sorted((spread.noise_levels_B * 8).long().tolist()) == list(range(8))
