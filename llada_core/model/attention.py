"""Bidirectional attention over a ragged batch, with or without cached keys.

Without a mask, query heads that share a key head are simply more queries to that head, so grouped heads need no copies.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from llada_core.model.kv_cache import KVCache
from llada_core.model.packed import PackedTokens

# (queries [N, H, Q, D], keys [N, K, L, D], values [N, K, L, D]) → [N, H, Q, D]
Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]

# The CPU's fused kernel takes ten times as long backward as forward in bfloat16. Up to this many keys, plain products
# make a whole training step up to 1.4 times as fast; past it they only need more memory.
_LONGEST_PLAIN = 512

# Up to these keys of a cached sequence, copying those of several sequences together costs less than a call for each.
_MOST_JOINED_BYTES = 320 << 10


@dataclass(frozen=True, slots=True)
class _Run:
    """Sequences that attend in one call: adjacent ones of the same shape, or a single one with a cache."""

    queries: slice
    keys: slice
    num_sequences: int
    cached: "_Cached | None"

    def keys_and_values(self, layer: int, k_TKD: Tensor, v_TKD: Tensor) -> tuple[Tensor, Tensor]:
        """Return all keys and values of the run's sequences, [N · L, K, D]; a cache is updated first."""
        k_TKD, v_TKD = k_TKD[self.keys], v_TKD[self.keys]
        return (k_TKD, v_TKD) if self.cached is None else self.cached.replace(layer, k_TKD, v_TKD)


@dataclass(frozen=True, slots=True)
class _Cached:
    """A cache, and the positions of it that a step writes."""

    cache: KVCache
    positions: slice | Tensor

    @classmethod
    def of(cls, cache: KVCache, window: np.ndarray, device: torch.device) -> "_Cached":
        first, last = int(window[0]), int(window[-1])
        if last - first == len(window) - 1:
            return cls(cache, slice(first, last + 1))
        return cls(cache, torch.from_numpy(window).to(device, non_blocking=True))

    def replace(self, layer: int, k_TKD: Tensor, v_TKD: Tensor) -> tuple[Tensor, Tensor]:
        return self.cache.replace(layer, self.positions, k_TKD, v_TKD)


@dataclass(frozen=True, slots=True)
class _Offsets:
    """The offsets of each sequence's queries and keys, which variable-length kernels need."""

    queries: Tensor
    keys: Tensor
    longest_query: int
    longest_key: int

    @classmethod
    def of(cls, packed: PackedTokens, counts: Sequence[int]) -> "_Offsets":
        caches = packed.caches or (None,) * len(counts)
        keys = [cache.length if cache else length for cache, length in zip(caches, packed.lengths, strict=True)]
        query_offsets, key_offsets = (
            torch.tensor((0, *lengths)).cumsum(0, dtype=torch.int32).to(packed.tokens_T.device, non_blocking=True)
            for lengths in (counts, keys)
        )
        return cls(query_offsets, key_offsets, max(counts), max(keys))


class AttentionPlan:
    """The attention pattern of a batch, built once per forward pass and used by all layers."""

    def __init__(self, packed: PackedTokens, row_counts: Sequence[int] | None = None) -> None:
        """
        Args:
            row_counts: how many positions of each sequence have queries; None for all of them.
        """
        counts = tuple(packed.lengths if row_counts is None else row_counts)
        self._runs = list(_runs(packed, counts))
        self._offsets = _Offsets.of(packed, counts) if packed.tokens_T.is_cuda else None

    def attend(self, q_QHD: Tensor, k_TKD: Tensor, v_TKD: Tensor, layer: int, kernel: Kernel | None = None) -> Tensor:
        """Compute softmax attention in which every position sees its whole sequence and nothing else: [Q, H, D].

        Args:
            q_QHD: queries of H heads; head h reads key head h // (H / K).
            k_TKD, v_TKD: keys and values of K heads.
            layer: index of the layer, under which caches keep keys and values.
            kernel: attention over sequences of one shape; None for torch's own on the device.
        """
        # A training batch is a single run, which torch's dense kernel takes whole.
        is_varied = self._offsets is not None and not torch.is_grad_enabled()
        if kernel is None and is_varied and q_QHD.dtype in (torch.bfloat16, torch.float16):
            return self._attend_at_once(q_QHD, k_TKD, v_TKD, layer)
        kernel = kernel or scaled_dot_product
        inputs = []
        for run in self._runs:
            run_inputs = (q_QHD[run.queries], *run.keys_and_values(layer, k_TKD, v_TKD))
            inputs.append(tuple(_batched(x, run.num_sequences) for x in run_inputs))
        outputs = [kernel(*qkv).transpose(1, 2).flatten(0, 1) for qkv in _joined(inputs)]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _attend_at_once(self, q_QHD: Tensor, k_TKD: Tensor, v_TKD: Tensor, layer: int) -> Tensor:
        # Imported here: it loads torch's compiler, which takes a second and serves only accelerators.
        from torch.nn.attention.varlen import varlen_attn

        offsets = self._offsets
        assert offsets is not None
        keys, values = zip(*(run.keys_and_values(layer, k_TKD, v_TKD) for run in self._runs), strict=True)
        attended = varlen_attn(
            q_QHD,
            torch.cat(keys),
            torch.cat(values),
            offsets.queries,
            offsets.keys,
            offsets.longest_query,
            offsets.longest_key,
            enable_gqa=True,
        )
        assert isinstance(attended, Tensor)
        return attended


def scaled_dot_product(q_NHQD: Tensor, k_NKLD: Tensor, v_NKLD: Tensor) -> Tensor:
    """Attend with torch's own dense kernel, or in training on a CPU by plain products where these are faster."""
    q_NKQD = group_queries(q_NHQD, k_NKLD.shape[1])
    is_slow_backward = q_NHQD.dtype == torch.bfloat16 and q_NHQD.device.type == "cpu" and torch.is_grad_enabled()
    if is_slow_backward and k_NKLD.shape[2] <= _LONGEST_PLAIN:
        scores_NKQL = (q_NKQD @ k_NKLD.mT) * q_NHQD.shape[-1] ** -0.5
        return (scores_NKQL.softmax(dim=-1, dtype=torch.float32).to(v_NKLD.dtype) @ v_NKLD).reshape(q_NHQD.shape)
    return F.scaled_dot_product_attention(q_NKQD, k_NKLD, v_NKLD).reshape(q_NHQD.shape)


def group_queries(q_NHQD: Tensor, num_key_heads: int) -> Tensor:
    """Lay the queries of all heads that share a key head one after another: [N, K, H / K · Q, D]."""
    if q_NHQD.shape[1] == num_key_heads:
        return q_NHQD
    return q_NHQD.unflatten(1, (num_key_heads, -1)).flatten(2, 3)


def _joined(inputs: Sequence[tuple[Tensor, ...]]) -> Iterator[tuple[Tensor, ...]]:
    """Join adjacent inputs of one shape, which are those of cached windows, if their keys are small."""
    for _, same in groupby(inputs, key=lambda qkv: (qkv[0].shape, qkv[1].shape)):
        alike = list(same)
        if len(alike) == 1 or alike[0][1].nbytes > _MOST_JOINED_BYTES:
            yield from alike
        else:
            yield tuple(torch.cat(parts) for parts in zip(*alike, strict=True))


def _batched(x_THD: Tensor, num_sequences: int) -> Tensor:
    return x_THD.unflatten(0, (num_sequences, -1)).transpose(1, 2)


def _runs(packed: PackedTokens, counts: tuple[int, ...]) -> Iterator[_Run]:
    sequences = len(packed.lengths)
    caches = packed.caches or (None,) * sequences
    query = key = first = 0
    # Padding is a sequence without queries at the last layer, so that layer's counts leave it out.
    counts += (0,) * (len(packed.lengths) - len(counts))
    # A cached sequence differs from every other by its cache, so it is a run of its own.
    shapes = zip(counts, packed.lengths, caches, strict=True)
    for (count, length, cache), run in groupby(shapes):
        size = sum(1 for _ in run)
        queries, keys = slice(query, query + size * count), slice(key, key + size * length)
        query, key = queries.stop, keys.stop
        if count:
            yield _Run(queries, keys, size, None if cache is None else _cached(packed, first, cache))
        first += size


def _cached(packed: PackedTokens, sequence: int, cache: KVCache) -> _Cached:
    window = np.arange(packed.lengths[sequence]) if packed.windows is None else packed.windows[sequence]
    return _Cached.of(cache, window, packed.tokens_T.device)
