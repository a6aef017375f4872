"""Attention over noisy sequences and their clean copies, by which block-causal models are trained (Block Diffusion,
arXiv:2503.09573): a noisy block sees itself and the clean blocks before it, and so does a clean one.

A mask over all pairs of positions of a doubled sequence has 4 L² entries. Here queries go in tiles, a few whole blocks
of a noisy sequence with those of its copy, and see no key right of the tile: about a quarter of the pairs. Left of the
tile they see everything, so tiles share one mask, as high as a tile, which begins further right for an earlier one.

Shape suffixes besides those of `packed`: N pairs of one length, P positions of a tile, S its queries (noisy, then
clean: 2 P), W its keys.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from llada_core.model.attention import scaled_dot_product
from llada_core.model.clean_context import InferencePattern, inference_pattern
from llada_core.model.packed import PackedTokens, Rows

# Positions of a tile if a block is not longer. More of them mean fewer calls, and more pairs that are computed in vain.
_TILE = 512


@dataclass(frozen=True, slots=True)
class _Run:
    """Adjacent pairs of one shape.

    Attributes:
        noisy, clean: their places in the packed batch.
    """

    noisy: slice
    clean: slice
    num_pairs: int
    length: int
    block_length: int

    def halves(self, x_THD: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noisy and the clean half of queries, keys or values, each [N, H, L, D]."""
        noisy, clean = (
            x_THD[half].unflatten(0, (self.num_pairs, -1)).transpose(1, 2) for half in (self.noisy, self.clean)
        )
        return noisy, clean

    def tiles(self) -> Iterator[slice]:
        """Yield the positions of each tile."""
        size = max(1, _TILE // self.block_length) * self.block_length
        for start in range(0, self.length, size):
            yield slice(start, min(start + size, self.length))


class DoubledAttention:
    """The attention pattern of a batch with clean copies, built once per forward pass and used by all layers."""

    def __init__(self, packed: PackedTokens) -> None:
        self._runs = list(_runs(packed))
        # By the positions of a tile and of its blocks: the tile that has most keys on its left.
        self._last_starts: dict[tuple[int, int], int] = {}
        for run in self._runs:
            for tile in run.tiles():
                kind = (tile.stop - tile.start, run.block_length)
                self._last_starts[kind] = max(tile.start, self._last_starts.get(kind, 0))
        self._biases: dict[tuple[int, int], Tensor] = {}

    def attend(self, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, _layer: int) -> Tensor:
        """Compute softmax attention to what a position sees: [T, H, D].

        Args:
            q_THD: queries of H heads; head h reads key head h // (H / K).
            k_TKD, v_TKD: keys and values of K heads.
        """
        attended = [self._attend(run, q_THD, k_TKD, v_TKD) for run in self._runs]
        noisy, clean = zip(*attended, strict=True)
        return torch.cat((*noisy, *clean))

    def _attend(self, run: _Run, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the noisy sequences of a run attend to, and what their copies do, each [N · L, H, D]."""
        (q_noisy, q_clean), (k_noisy, k_clean), (v_noisy, v_clean) = map(run.halves, (q_THD, k_TKD, v_TKD))
        outputs = []
        for tile in run.tiles():
            q_NHSD = torch.cat((q_noisy[:, :, tile], q_clean[:, :, tile]), dim=2)
            k_NKWD, v_NKWD = (
                torch.cat((clean[:, :, : tile.stop], noisy[:, :, tile]), dim=2)
                for noisy, clean in ((k_noisy, k_clean), (v_noisy, v_clean))
            )
            output_NHSD = scaled_dot_product(q_NHSD, k_NKWD, v_NKWD, self._bias(run, tile, q_NHSD, k_NKWD))
            outputs.append(output_NHSD.unflatten(2, (2, -1)))
        noisy_NLHD, clean_NLHD = torch.cat(outputs, dim=3).transpose(1, 3).unbind(dim=2)
        return noisy_NLHD.flatten(0, 1), clean_NLHD.flatten(0, 1)

    def _bias(self, run: _Run, tile: slice, q_NHSD: Tensor, k_NKWD: Tensor) -> Tensor:
        """Return what is added to the scores of a tile, 0 or -inf: [H / K · S, W]."""
        kind = (tile.stop - tile.start, run.block_length)
        if kind not in self._biases:
            device = q_NHSD.device
            # The kernel's dtype: autograd would keep a copy in it for every layer.
            is_cast = torch.is_autocast_enabled(device.type)
            dtype = torch.get_autocast_dtype(device.type) if is_cast else q_NHSD.dtype
            bias_SS = torch.where(_is_seen(*kind, device=device), 0.0, -torch.inf).to(dtype)
            bias_SW = torch.cat((bias_SS.new_zeros(len(bias_SS), self._last_starts[kind]), bias_SS), dim=1)
            self._biases[kind] = bias_SW.repeat(q_NHSD.shape[1] // k_NKWD.shape[1], 1)
        return self._biases[kind][:, self._last_starts[kind] - tile.start :]


def _is_seen(size: int, block_length: int, *, device: torch.device) -> Tensor:
    """Return which keys of a tile of `size` positions its queries see, bool [S, S]; clean keys come before noisy."""
    blocks_P = torch.arange(size, device=device) // block_length
    is_own_PP, is_before_PP = blocks_P.unsqueeze(1) == blocks_P, blocks_P.unsqueeze(1) > blocks_P
    by_noisy_PS = torch.cat((is_before_PP, is_own_PP), dim=1)
    by_clean_PS = torch.cat((is_before_PP | is_own_PP, torch.zeros_like(is_own_PP)), dim=1)
    return torch.cat((by_noisy_PS, by_clean_PS))


def _runs(packed: PackedTokens) -> Iterator[_Run]:
    half, num_noisy = len(packed.lengths) // 2, len(packed.tokens_T) // 2
    assert packed.block_lengths is not None
    assert packed.lengths[:half] == packed.lengths[half:]
    kinds = zip(packed.lengths[:half], packed.block_lengths[:half], strict=True)
    start = 0
    for (length, block_length), run in groupby(kinds):
        assert block_length is not None
        num_pairs = sum(1 for _ in run)
        stop = start + num_pairs * length
        yield _Run(slice(start, stop), slice(num_noisy + start, num_noisy + stop), num_pairs, length, block_length)
        start = stop


Pattern = InferencePattern | DoubledAttention


def attention_pattern(packed: PackedTokens, rows: Rows | None = None) -> Pattern:
    """Return the attention pattern of a batch.

    Args:
        rows: see `AttentionPlan`; None for a batch with copies.
    """
    if packed.has_copies:
        assert rows is None
        return DoubledAttention(packed)
    return inference_pattern(packed, rows)
