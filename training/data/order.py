"""The order of samples: which ones a step has, as a function of (seed, step) alone.

Orders are drawn from coordinates, so a resumed run, or one on another number of processes, sees the same batches.
"""

from collections.abc import Sequence
from fractions import Fraction
from math import gcd, lcm
from typing import Protocol

import numpy as np
import torch

from llada_core.counter_noise import Purpose, uniform

# Grouping by length sorts windows of this many batches, for little padding and a mixture that is still random.
_WINDOW_BATCHES = 50
# Shares are counted in this many turns at most, so they are exact to a hundredth of a percent.
_MOST_TURNS = 10_000


class Order(Protocol):
    """An endless order of samples.

    Attributes:
        batch_size: samples of a step.
    """

    batch_size: int

    def rows(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """The samples of a step, and the epoch in which each of them is seen: two arrays of int64 [B]."""
        ...


class EpochOrder:
    """Passes over all samples, each in an order of its own; what does not fill a batch is left for other epochs."""

    def __init__(self, lengths: np.ndarray, *, batch_size: int, seed: int, group_by_length: bool) -> None:
        self.batch_size = min(batch_size, len(lengths))
        self._lengths = lengths
        self._seed = seed
        self._group_by_length = group_by_length
        self._epoch: tuple[int, list[np.ndarray]] = (-1, [])

    def rows(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        epoch, number = divmod(step, len(self._lengths) // self.batch_size)
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._batches(epoch))
        samples_B = self._epoch[1][number]
        return samples_B, np.full_like(samples_B, epoch)

    def _batches(self, epoch: int) -> list[np.ndarray]:
        seed, size = self._seed, self.batch_size
        shuffled = uniform(seed, Purpose.DATA_ORDER, epoch, torch.arange(len(self._lengths))).argsort().numpy()
        # Drop the remainder before sorting: afterwards it would always be the longest samples.
        shuffled = shuffled[: len(shuffled) // size * size]
        if not self._group_by_length:
            return list(shuffled.reshape(-1, size))
        lengths, batches = self._lengths[shuffled], []
        for start in range(0, len(shuffled), size * _WINDOW_BATCHES):
            window = slice(start, start + size * _WINDOW_BATCHES)
            by_length = shuffled[window][np.argsort(lengths[window], kind="stable")]
            batches += [by_length[i : i + size] for i in range(0, len(by_length), size)]
        order = uniform(seed, Purpose.DATA_ORDER, epoch, -1 - torch.arange(len(batches))).argsort().tolist()
        return [batches[i] for i in order]


class MixtureOrder:
    """Several parts, each with a share of the samples, in turns that keep the shares over any stretch of steps.

    Each part is passed over at its own pace, every time in another order: a small one with a large share repeats.
    """

    def __init__(self, sizes: Sequence[int], shares: Sequence[int], *, batch_size: int, seed: int) -> None:
        """Plan the turns.

        Args:
            sizes: samples of each part, which lie one after the other.
            shares: turns of each part in a cycle.
        """
        self.batch_size = batch_size
        self._seed = seed
        self._sizes, self._shares = np.array(sizes), np.array(shares)
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._turns = _turns(shares)
        is_turn_PT = self._turns == np.arange(len(sizes))[:, None]
        self._before_PT = np.cumsum(is_turn_PT, axis=1) - is_turn_PT
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    def rows(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        cycles_B, turns_B = np.divmod(np.arange(step * self.batch_size, (step + 1) * self.batch_size), len(self._turns))
        parts_B = self._turns[turns_B]
        earlier_B = cycles_B * self._shares[parts_B] + self._before_PT[parts_B, turns_B]
        epochs_B, places_B = np.divmod(earlier_B, self._sizes[parts_B])
        samples_B = np.empty_like(places_B)
        for part, epoch in {*zip(parts_B.tolist(), epochs_B.tolist(), strict=True)}:
            chosen_B = (parts_B == part) & (epochs_B == epoch)
            samples_B[chosen_B] = self._starts[part] + self._order(part, epoch)[places_B[chosen_B]]
        return samples_B, epochs_B

    def _order(self, part: int, epoch: int) -> np.ndarray:
        if (part, epoch) not in self._orders:
            # A step may need the end of one epoch and the beginning of the next.
            self._orders = {key: order for key, order in self._orders.items() if key[0] != part or key[1] == epoch - 1}
            members = torch.arange(int(self._sizes[part])) + int(self._starts[part])
            self._orders[part, epoch] = uniform(self._seed, Purpose.DATA_ORDER, epoch, members).argsort().numpy()
        return self._orders[part, epoch]


def whole_shares(shares: Sequence[Fraction]) -> tuple[int, ...]:
    """Shares as the smallest whole numbers in the same proportion; rounded if these would be very large."""
    total = sum(shares, Fraction(0))
    exact = [share / total for share in shares]
    turns = lcm(*(share.denominator for share in exact))
    counts = [max(1, round(share * min(turns, _MOST_TURNS))) for share in exact]
    divisor = gcd(*counts)
    return tuple(count // divisor for count in counts)


def _turns(shares: Sequence[int]) -> np.ndarray:
    """One cycle of turns, each part as evenly spread as its share allows: smooth weighted round-robin."""
    total, credit, turns = sum(shares), [0] * len(shares), []
    for _ in range(total):
        credit = [balance + share for balance, share in zip(credit, shares, strict=True)]
        part = max(range(len(shares)), key=credit.__getitem__)
        credit[part] -= total
        turns.append(part)
    return np.array(turns)
