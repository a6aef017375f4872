"""Rotary position embedding (RoPE, arXiv:2104.09864) in the half-split layout."""

import torch
from torch import Tensor


class RotaryTable:
    """Cosines and sines for the positions 0 … n-1, grown on demand and kept once per device.

    A plain object, not a module: two numbers determine the table, so no checkpoint holds it.
    """

    def __init__(self, dim: int, theta: float) -> None:
        self._dim = dim
        self._theta = theta
        self._tables: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def at(self, positions_T: Tensor, *, longest: int) -> tuple[Tensor, Tensor]:
        """Return the cosines and sines at `positions_T`, two float32 tensors [T, 1, D] for D rotated features.

        Args:
            longest: an exclusive upper bound on the positions, known on the host, so that the device is never queried.
        """
        cos_LD, sin_LD = self._table(longest, positions_T.device)
        return cos_LD[positions_T].unsqueeze(1), sin_LD[positions_T].unsqueeze(1)

    def _table(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        table = self._tables.get(device)
        if table is None or len(table[0]) < length:
            table = self._compute(max(length, 2 * len(table[0]) if table else 0), device)
            if device.type != "meta":
                self._tables[device] = table
        return table

    def _compute(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        angles = rotary_angles(length, self._dim, self._theta, device=device)
        angles_LD = torch.cat((angles, angles), dim=-1)
        return angles_LD.cos(), angles_LD.sin()


def rotary_angles(length: int, dim: int, theta: float, *, device: torch.device | str = "cpu") -> Tensor:
    """Return the angle by which each position turns each pair of features, float32 [length, dim / 2]."""
    exponents = torch.arange(0, dim, 2, device=device, dtype=torch.float32) / dim
    return torch.outer(torch.arange(length, device=device, dtype=torch.float32), 1.0 / theta**exponents)


def rotate(x_THD: Tensor, cos_T1D: Tensor, sin_T1D: Tensor, *, is_float32: bool = True) -> Tensor:
    """Rotate queries or keys; return them in the input's dtype.

    Args:
        cos_T1D, sin_T1D: of as many features as are rotated; the others stay.
        is_float32: compute in float32; otherwise in the input's dtype, to which the cosines and sines are rounded.
    """
    dim = cos_T1D.shape[-1]
    if dim < x_THD.shape[-1]:
        rotated_THD = rotate(x_THD[..., :dim], cos_T1D, sin_T1D, is_float32=is_float32)
        return torch.cat((rotated_THD, x_THD[..., dim:]), dim=-1)
    dtype = torch.float32 if is_float32 else x_THD.dtype
    x, cos, sin = x_THD.to(dtype), cos_T1D.to(dtype), sin_T1D.to(dtype)
    left, right = x.chunk(2, dim=-1)
    return (x * cos + torch.cat((-right, left), dim=-1) * sin).to(x_THD.dtype)
