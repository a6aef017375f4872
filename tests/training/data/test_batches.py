from dataclasses import dataclass

import numpy as np
import pytest
import torch

from training.data.batches import BatchPlanner
from training.data.samples import Sample

EOS = 1


@dataclass
class FakeSamples:
    """Sample i holds 5 + i, `lengths[i]` times, after a prompt of one."""

    lengths: np.ndarray
    prompt_lengths: np.ndarray
    spans: tuple[int, ...] | None = None

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, index):
        length = int(self.lengths[index])
        return Sample(np.full(length, 5 + index, dtype=np.int32), 1, self.spans or (length,))


def samples_of(*lengths, prompt=1, spans=None):
    return FakeSamples(np.array(lengths), np.full(len(lengths), prompt), spans)


def planner(samples, **options):
    options = {"batch_size": 4, "seed": 0, "eos_id": EOS, "loss_norm": "sequence", "is_sft": True, **options}
    return BatchPlanner(samples, **options)


def batches(samples, count, first=0, **options):
    found = planner(samples, **options)
    return [found.collate(found.plan(step), slice(None)) for step in range(first, first + count)]


@pytest.mark.parametrize("group_by_length", [False, True])
def test_an_epoch_visits_every_sample_once_and_the_next_in_another_order(group_by_length):
    found = batches(samples_of(*range(2, 42)), 20, group_by_length=group_by_length)
    seen = [index for batch in found for index in batch.samples_B.tolist()]
    assert sorted(seen[:40]) == sorted(seen[40:]) == list(range(40))
    assert seen[:40] != seen[40:]


def test_rows_are_padded_with_supervised_eos_to_the_longest_of_the_batch():
    (batch,) = batches(samples_of(3, 9, 5, 7), 1)
    assert batch.tokens_BL.shape == (4, 9)
    assert batch.target_stops_B.tolist() == [9] * 4
    assert batch.spans == ((9,),) * 4
    for row, sample in zip(batch.tokens_BL, batch.samples_B.tolist(), strict=True):
        length = (3, 9, 5, 7)[sample]
        assert row.tolist() == [5 + sample] * length + [EOS] * (9 - length)


def test_a_part_of_a_batch_is_padded_and_normalised_as_the_whole():
    found = planner(samples_of(3, 9, 5, 7))
    plan = found.plan(0)
    whole = found.collate(plan, slice(None))
    parts = [found.collate(plan, slice(start, start + 2)) for start in (0, 2)]
    for name in ("samples_B", "tokens_BL", "normalizer_B", "target_stops_B"):
        assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in parts]))


def padding_share(**options):
    """Of an epoch's positions, with samples as different in length as answers are."""
    found = batches(samples_of(*([4] * 40 + [30] * 40)), 20, **options)
    return sum(int((batch.tokens_BL == EOS).sum()) for batch in found) / sum(b.tokens_BL.numel() for b in found)


def test_batches_are_random_so_that_most_short_rows_are_followed_by_padding_to_learn_from():
    assert padding_share() > 0.3


def test_batches_grouped_by_length_hold_rows_of_similar_length():
    assert padding_share(group_by_length=True) == 0


def test_a_step_is_the_same_wherever_the_planner_starts():
    samples = samples_of(*range(2, 42))
    for expected, found in zip(
        batches(samples, 25, pad_to=64)[13:], batches(samples, 12, first=13, pad_to=64), strict=True
    ):
        assert torch.equal(expected.tokens_BL, found.tokens_BL)
        assert expected.epoch == found.epoch


def test_one_batch_in_three_is_padded_further():
    lengths = [batch.tokens_BL.shape[1] for batch in batches(samples_of(*[5] * 8), 600, pad_to=100)]
    assert max(lengths) <= 100
    assert 0.25 < sum(length > 5 for length in lengths) / 600 < 0.4


def test_fewer_samples_than_a_batch_still_make_one():
    assert batches(samples_of(3, 4), 2)[1].epoch == 1


def cut_lengths(**options):
    """The length of every sample in the first epoch of pre-training."""
    found = {}
    for batch in batches(samples_of(*[50] * 4000, prompt=0), 4000 // options["batch_size"], is_sft=False, **options):
        found |= dict(zip(batch.samples_B.tolist(), batch.target_stops_B.tolist(), strict=True))
    return found


def test_one_pretraining_sample_in_a_hundred_is_cut_to_a_random_length_whatever_the_batch_size():
    found = cut_lengths(batch_size=4, loss_norm="token")
    cut = [length for length in found.values() if length < 50]
    assert 20 <= len(cut) <= 60
    assert min(cut) >= 1 and len(set(cut)) > 10
    assert found == cut_lengths(batch_size=40, loss_norm="token")


def test_what_a_cut_leaves_of_a_row_is_neither_computed_nor_a_target():
    for batch in batches(samples_of(*[50] * 400, prompt=0, spans=(20, 30)), 100, is_sft=False, loss_norm="token"):
        for spans, stop, row in zip(batch.spans, batch.target_stops_B.tolist(), batch.tokens_BL, strict=True):
            assert sum(spans) == stop
            assert (row[stop:] == EOS).all()
            assert spans == ((20, stop - 20) if stop > 20 else (stop,))


def test_the_loss_norm_says_what_weighs_the_same():
    lengths, starts = torch.tensor([9.0] * 4), torch.ones(4)
    (batch,) = batches(samples_of(3, 9, 5, 7), 1)
    assert batch.normalizer_B.tolist() == ((lengths - starts) * 4).tolist()
    (batch,) = batches(samples_of(3, 9, 5, 7), 1, loss_norm="token")
    assert batch.normalizer_B.tolist() == [32.0] * 4


def test_the_longest_samples_are_drawn_as_often_as_others():
    seen = [
        index
        for batch in batches(samples_of(*range(2, 152)), 4 * 50, batch_size=32)
        for index in batch.samples_B.tolist()
    ]
    counts = [seen.count(index) for index in range(150)]
    assert min(counts) > 20
    assert sum(counts[-22:]) > 0.8 * sum(counts[:22])
