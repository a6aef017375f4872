from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from training.data.order import MixtureOrder, whole_shares


def mixture(sizes, shares, batch_size=10, seed=0):
    return MixtureOrder(sizes, whole_shares([Fraction(share) for share in shares]), batch_size=batch_size, seed=seed)


def parts_of(samples, sizes):
    return np.searchsorted(np.cumsum(sizes), samples, side="right")


@pytest.mark.parametrize(
    ("shares", "whole"),
    [
        (["0.7", "0.3"], (7, 3)),
        (["1", "1"], (1, 1)),
        (["2", "6"], (1, 3)),
        (["0.333", "0.667"], (333, 667)),
        (["0.5", "0.25", "0.25"], (2, 1, 1)),
        (["0.00001", "1"], (1, 10000)),
    ],
)
def test_shares_become_small_whole_numbers(shares, whole):
    assert whole_shares([Fraction(share) for share in shares]) == whole


def test_every_step_has_its_shares():
    sizes = [50, 1000]
    order = mixture(sizes, ["0.3", "0.7"])
    for step in range(200):
        samples, _ = order.rows(step)
        assert Counter(parts_of(samples, sizes).tolist()) == {0: 3, 1: 7}


@pytest.mark.parametrize("shares", [["0.5", "0.3", "0.2"], ["0.01", "0.99"], ["1", "1", "1"], ["0.615", "0.385"]])
def test_any_stretch_of_steps_has_its_shares_to_within_a_sample_or_two(shares):
    sizes = [40, 70, 90][: len(shares)]
    order, total = mixture(sizes, shares, batch_size=7), sum(map(float, shares))
    parts = np.concatenate([parts_of(order.rows(step)[0], sizes) for step in range(400)])
    for first, count in ((0, 1), (3, 5), (17, 100), (200, 200)):
        stretch = parts[first * 7 : (first + count) * 7]
        for part, share in enumerate(shares):
            assert abs((stretch == part).sum() - float(share) / total * len(stretch)) < 2


def test_each_part_is_passed_over_at_its_own_pace_in_a_new_order_every_time():
    sizes = [6, 50]
    order = mixture(sizes, ["0.6", "0.4"])
    seen = [pair for step in range(5) for pair in zip(*(row.tolist() for row in order.rows(step)), strict=True)]
    small = [(sample, epoch) for sample, epoch in seen if sample < 6]
    assert [epoch for _, epoch in small] == [epoch for epoch in range(5) for _ in range(6)]
    passes = [[sample for sample, epoch in small if epoch == number] for number in range(5)]
    assert all(sorted(one) == list(range(6)) for one in passes)
    assert len(set(map(tuple, passes))) > 1
    assert {epoch for sample, epoch in seen if sample >= 6} == {0}


def test_a_step_is_the_same_wherever_the_order_is_entered():
    sizes = [6, 50, 9]
    whole = mixture(sizes, ["0.3", "0.5", "0.2"], batch_size=16)
    steps = [whole.rows(step) for step in range(40)]
    for step in (39, 3, 17, 16):
        for expected, found in zip(
            steps[step], mixture(sizes, ["0.3", "0.5", "0.2"], batch_size=16).rows(step), strict=True
        ):
            assert np.array_equal(expected, found)


def test_another_seed_gives_another_order():
    first, second = (mixture([50, 50], ["1", "1"], seed=seed).rows(0)[0] for seed in (0, 1))
    assert not np.array_equal(first, second)
