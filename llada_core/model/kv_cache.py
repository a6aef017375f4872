"""Keys and values of one sequence, kept from step to step.

In a bidirectional model every position's keys change whenever any token does, so a cache of them is an approximation:
good for some steps, then refreshed by a forward pass over the whole sequence (Fast-dLLM, arXiv:2505.22618). Under
block-causal attention a finished block's keys are final, and a cache of them is exact.
"""

import torch
from torch import Tensor

from llada_core.model.shape import ModelShape


class KVCache:
    """Room for the keys and values of one sequence at every layer. Positions not yet written must not be read.

    Attributes:
        filled: the positions, from the first on, whose keys and values never change any more (block-causal attention).
    """

    def __init__(self, model: ModelShape, length: int, *, dtype: torch.dtype, device: torch.device) -> None:
        # Head before position: the order in which attention reads them.
        shape = (model.num_layers, 2, model.num_key_value_heads, length, model.head_dim)
        self._layers = torch.empty(shape, dtype=dtype, device=device)
        self.filled = 0

    @staticmethod
    def num_bytes(model: ModelShape, length: int, dtype: torch.dtype) -> int:
        """Return the memory in bytes of a cache for `length` positions."""
        return model.num_layers * 2 * length * model.num_key_value_heads * model.head_dim * dtype.itemsize

    @property
    def length(self) -> int:
        return self._layers.shape[3]

    @property
    def dtype(self) -> torch.dtype:
        return self._layers.dtype

    def read(self, positions: slice) -> Tensor:
        """Return a copy of the keys and values of T adjacent positions at every layer: [layers, 2, K, T, D]."""
        return self._layers[:, :, :, positions].clone(memory_format=torch.contiguous_format)

    def first(self, layer: int, length: int) -> tuple[Tensor, Tensor]:
        """Return the keys and the values of the first positions at a layer, each [K, length, D]: views."""
        k_KLD, v_KLD = self._layers[layer, :, :, :length]
        return k_KLD, v_KLD

    def write(self, start: int, layers: Tensor) -> None:
        """Write keys and values that `read` returned, from position `start` on."""
        self._layers[:, :, :, start : start + layers.shape[3]] = layers

    def replace(self, layer: int, positions: slice | Tensor, k_TKD: Tensor, v_TKD: Tensor) -> tuple[Tensor, Tensor]:
        """Write the keys and values of `positions`; return those of all positions, [L, K, D]."""
        keys_LKD, values_LKD = self._layers[layer].transpose(1, 2)
        # Rotated keys are float32 in every precision; writing to a set of positions, torch does not convert.
        keys_LKD[positions] = k_TKD.to(keys_LKD.dtype)
        values_LKD[positions] = v_TKD.to(values_LKD.dtype)
        return keys_LKD, values_LKD
