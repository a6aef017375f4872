"""Random numbers as a pure function of their coordinates.

A stream of random numbers couples whatever shares it: with one generator a request's draw would depend on its
neighbours in the batch, and a resumed training run would need the generator's state. Here each number is a hash of
(seed, purpose, coordinates…), so it is the same alone or in a batch, on every device, after a restart, in any order.

The hash is SplitMix64's finaliser (Steele, Lea, Flood 2014; Stafford's variant 13), folded in once per coordinate.
"""

from enum import IntEnum

import torch
from torch import Tensor

_MASK_64 = (1 << 64) - 1
_GOLDEN_GAMMA = 0x9E3779B97F4A7C15
_MULTIPLIER_1 = 0xBF58476D1CE4E5B9
_MULTIPLIER_2 = 0x94D049BB133111EB


class Purpose(IntEnum):
    """The purpose of a draw. Two purposes never share a number, whatever their coordinates."""

    GUMBEL = 1
    REMASKING = 2
    NOISE_LEVEL = 3
    CORRUPTION = 4
    MASK_COUNT = 5
    MASK_ORDER = 6
    LENGTH_CUT = 7
    DATA_ORDER = 8
    PADDING = 9
    STRATUM = 10
    VALIDATION = 11
    FILLING = 12
    ROLLOUT = 13
    BLOCK = 14


def uniform(
    seed: int | Tensor, purpose: Purpose, *coordinates: int | Tensor, device: torch.device | str = "cpu"
) -> Tensor:
    """Draw uniform float64 numbers in the open interval (0, 1), one for each combination of the broadcast coordinates.

    Args:
        seed: any integer; taken modulo 2^64. Or a tensor of seeds as `signed` gives them, a further coordinate.
        coordinates: integers, or int64 tensors that broadcast against each other; their order matters.
    """
    state = seed if isinstance(seed, Tensor) else torch.tensor(signed(seed), device=device)
    for coordinate in (int(purpose), *coordinates):
        state = _mix((state ^ coordinate) + signed(_GOLDEN_GAMMA))
    # 52 random bits plus 0.5: exact in float64, and neither 0 nor 1, so that log(u) and log(-log u) are finite.
    return (_logical_shift(state, 12).double() + 0.5) * 2.0**-52


def _mix(state: Tensor) -> Tensor:
    state = (state ^ _logical_shift(state, 30)) * signed(_MULTIPLIER_1)
    state = (state ^ _logical_shift(state, 27)) * signed(_MULTIPLIER_2)
    return state ^ _logical_shift(state, 31)


def _logical_shift(state: Tensor, bits: int) -> Tensor:
    return (state >> bits) & ((1 << (64 - bits)) - 1)


def signed(value: int) -> int:
    """Return `value` modulo 2^64 as the int64 with the same bits; torch computes with those."""
    value &= _MASK_64
    return value - (1 << 64) if value >> 63 else value
