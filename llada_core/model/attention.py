"""Attention over a ragged batch, with or without cached keys: to a whole sequence, or block by block.

Under block-causal attention the queries of a few blocks attend together to the keys up to the end of the last one, and
a mask hides what comes after each block's own end. A single block, as in a cached step, needs no mask. Query heads that
share a key head are simply more queries to that head, so grouped heads need no copies.
Block-causal training attends in another way (`doubled_attention`).

Shape suffix besides those of `packed`: W keys from the end of a span's first block on.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from llada_core.model.kv_cache import KVCache
from llada_core.model.packed import PackedTokens, Rows

# (queries [N, H, Q, D], keys [N, K, L, D], values [N, K, L, D] and, for spans of several blocks, which of the last keys
# each query does not see [Q, W]) → [N, H, Q, D]
Kernel = Callable[..., Tensor]

# The CPU's fused kernel takes ten times as long backward as forward in bfloat16. Up to this many keys, plain products
# make a whole training step up to 1.4 times as fast; past it they only need more memory.
_LONGEST_PLAIN = 512

# Adjacent blocks attend together up to this many queries. With a call for each block of four tokens a long prompt takes
# up to twice as long; with more queries, hidden keys cost what fewer calls save.
_MOST_MASKED_QUERIES = 128

# Up to these keys of a cached sequence, copying those of several sequences together costs less than a call for each.
_MOST_JOINED_BYTES = 320 << 10


@dataclass(frozen=True, slots=True)
class _Span:
    """Queries of a sequence that attend together to its first keys: to all of them, or to blocks up to their own.

    Attributes:
        blocks: where each block ends among the queries, and among the keys; empty if all queries see all `num_keys`.
    """

    start: int
    stop: int
    num_keys: int
    blocks: tuple[tuple[int, int], ...] = ()

    @property
    def num_queries(self) -> int:
        return self.stop - self.start

    def hidden(self) -> Tensor:
        """Return which keys from the first block's end on each query does not see, bool [Q, W]."""
        stops, ends = zip(*self.blocks, strict=True)
        ends_Q = np.repeat(ends, np.diff((self.start, *stops)))
        return torch.from_numpy(np.arange(ends[0], self.num_keys) >= ends_Q[:, None])


@dataclass(frozen=True, slots=True)
class _Run:
    """Adjacent sequences of the same shape, all of one span, or a single sequence of any.

    Attributes:
        queries, keys: their places in the packed batch.
    """

    queries: slice
    keys: slice
    num_sequences: int
    spans: tuple[_Span, ...]
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
    """The offsets of each span's queries and keys, which variable-length kernels need."""

    queries: Tensor
    keys: Tensor
    longest_query: int
    longest_key: int

    @classmethod
    def of(cls, runs: Sequence[_Run], device: torch.device) -> "_Offsets":
        spans = [span for run in runs for span in run.spans * run.num_sequences]
        queries, keys = [span.num_queries for span in spans], [span.num_keys for span in spans]
        query_offsets, key_offsets = (
            torch.tensor((0, *lengths)).cumsum(0, dtype=torch.int32).to(device, non_blocking=True)
            for lengths in (queries, keys)
        )
        return cls(query_offsets, key_offsets, max(queries), max(keys))


class AttentionPlan:
    """The attention pattern of a batch, built once per forward pass and used by all layers."""

    def __init__(self, packed: PackedTokens, rows: Rows | None = None) -> None:
        """
        Args:
            rows: the positions that have queries; None for all of them.
        """
        assert not packed.has_copies
        self._runs = list(_runs(packed, rows))
        device = packed.tokens_T.device
        masked = {span for run in self._runs for span in run.spans if span.blocks}
        self._hidden = {span: span.hidden().to(device, non_blocking=True) for span in masked}
        # Variable-length kernels know no such mask.
        self._offsets = _Offsets.of(self._runs, device) if packed.tokens_T.is_cuda and not masked else None

    def attend(self, q_QHD: Tensor, k_TKD: Tensor, v_TKD: Tensor, layer: int, kernel: Kernel | None = None) -> Tensor:
        """Compute softmax attention to a position's sequence, or to the blocks of it up to the position's: [Q, H, D].

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
        kernel = kernel or masked_dot_product
        inputs = []
        for run in self._runs:
            run_inputs = (q_QHD[run.queries], *run.keys_and_values(layer, k_TKD, v_TKD))
            q_NHQD, k_NKLD, v_NKLD = (_batched(x, run.num_sequences) for x in run_inputs)
            for span in run.spans:
                queries, keys = slice(span.start, span.stop), slice(span.num_keys)
                qkv = (q_NHQD[:, :, queries], k_NKLD[:, :, keys], v_NKLD[:, :, keys])
                inputs.append((*qkv, self._hidden[span]) if span.blocks else qkv)
        outputs = [kernel(*qkv).transpose(1, 2).flatten(0, 1) for qkv in _joined(inputs)]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs)

    def _attend_at_once(self, q_QHD: Tensor, k_TKD: Tensor, v_TKD: Tensor, layer: int) -> Tensor:
        # Imported here: it loads torch's compiler, which takes a second and serves only accelerators.
        from torch.nn.attention.varlen import varlen_attn

        offsets = self._offsets
        assert offsets is not None
        keys, values = [], []
        for run in self._runs:
            run_keys, run_values = run.keys_and_values(layer, k_TKD, v_TKD)
            for span in run.spans:
                keys.append(run_keys[: run.num_sequences * span.num_keys])
                values.append(run_values[: run.num_sequences * span.num_keys])
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


def masked_dot_product(q_NHQD: Tensor, k_NKLD: Tensor, v_NKLD: Tensor, hidden_QW: Tensor | None = None) -> Tensor:
    """Attend by `scaled_dot_product`, without the keys that a span's queries do not see: a `Kernel`."""
    bias_RL = None if hidden_QW is None else _bias(hidden_QW, q_NHQD, k_NKLD)
    return scaled_dot_product(q_NHQD, k_NKLD, v_NKLD, bias_RL)


def scaled_dot_product(q_NHQD: Tensor, k_NKLD: Tensor, v_NKLD: Tensor, bias_QL: Tensor | None = None) -> Tensor:
    """Attend with torch's own dense kernel, or in training on a CPU by plain products where these are faster.

    Args:
        bias_QL: added to the scores; it has a row for each query of a key head, [H / K · Q, L].
    """
    q_NKQD = group_queries(q_NHQD, k_NKLD.shape[1])
    is_slow_backward = q_NHQD.dtype == torch.bfloat16 and q_NHQD.device.type == "cpu" and torch.is_grad_enabled()
    if is_slow_backward and k_NKLD.shape[2] <= _LONGEST_PLAIN:
        scores_NKQL = (q_NKQD @ k_NKLD.mT) * q_NHQD.shape[-1] ** -0.5
        scores_NKQL = scores_NKQL if bias_QL is None else scores_NKQL + bias_QL
        return (scores_NKQL.softmax(dim=-1, dtype=torch.float32).to(v_NKLD.dtype) @ v_NKLD).reshape(q_NHQD.shape)
    return F.scaled_dot_product_attention(q_NKQD, k_NKLD, v_NKLD, bias_QL).reshape(q_NHQD.shape)


def group_queries(q_NHQD: Tensor, num_key_heads: int) -> Tensor:
    """Lay the queries of all heads that share a key head one after another: [N, K, H / K · Q, D]."""
    if q_NHQD.shape[1] == num_key_heads:
        return q_NHQD
    return q_NHQD.unflatten(1, (num_key_heads, -1)).flatten(2, 3)


def hidden_rows(hidden_QW: Tensor, num_queries: int) -> Tensor:
    """Repeat a mask for the queries of all heads that share a key head, as `group_queries` lays them."""
    return hidden_QW.repeat(num_queries // len(hidden_QW), 1)


def _bias(hidden_QW: Tensor, q_NHQD: Tensor, k_NKLD: Tensor) -> Tensor:
    """Return the mask as a bias for the scores of grouped queries, [H / K · Q, L]."""
    _, num_heads, num_queries, _ = q_NHQD.shape
    _, num_key_heads, num_keys, _ = k_NKLD.shape
    hidden_RW = hidden_rows(hidden_QW, num_heads // num_key_heads * num_queries)
    bias_RL = q_NHQD.new_zeros(len(hidden_RW), num_keys)
    bias_RL[:, num_keys - hidden_RW.shape[1] :].masked_fill_(hidden_RW, -torch.inf)
    return bias_RL


def _joined(inputs: Sequence[tuple[Tensor, ...]]) -> Iterator[tuple[Tensor, ...]]:
    """Join adjacent inputs of one shape without masks, which are those of cached windows, if their keys are small."""
    for (has_mask, *_), same in groupby(inputs, key=lambda qkv: (len(qkv) > 3, qkv[0].shape, qkv[1].shape)):
        alike = list(same)
        if len(alike) == 1 or has_mask or alike[0][1].nbytes > _MOST_JOINED_BYTES:
            yield from alike
        else:
            yield tuple(torch.cat(parts) for parts in zip(*alike, strict=True))


def _batched(x_THD: Tensor, num_sequences: int) -> Tensor:
    return x_THD.unflatten(0, (num_sequences, -1)).transpose(1, 2)


def _runs(packed: PackedTokens, rows: Rows | None) -> Iterator[_Run]:
    sequences = len(packed.lengths)
    caches = packed.caches or (None,) * sequences
    query = key = first = 0
    # A cached sequence differs from every other by its cache, so it is a run of its own; so is one of several spans.
    kinds = [
        (spans, length, cache, 0 if len(spans) == 1 else number)
        for number, (spans, length, cache) in enumerate(zip(_spans(packed, rows), packed.lengths, caches, strict=True))
    ]
    for (spans, length, cache, _), run in groupby(kinds):
        size = sum(1 for _ in run)
        queries, keys = slice(query, query + size * spans[-1].stop), slice(key, key + size * length)
        query, key = queries.stop, keys.stop
        if spans[-1].stop:
            yield _Run(queries, keys, size, spans, None if cache is None else _cached(packed, first, cache))
        first += size


def _spans(packed: PackedTokens, rows: Rows | None) -> list[tuple[_Span, ...]]:
    """Return the spans of each sequence; one without queries has a single, empty one."""
    sequences = len(packed.lengths)
    # Padding is a sequence without queries at the last layer, so that layer's counts leave it out.
    counts = packed.lengths if rows is None else rows.counts + (0,) * (sequences - len(rows.counts))
    caches = packed.caches or (None,) * sequences
    lengths = [cache.length if cache else length for cache, length in zip(caches, packed.lengths, strict=True)]
    if packed.block_lengths is None:
        return [(_Span(0, count, length),) for count, length in zip(counts, lengths, strict=True)]
    windows = packed.all_windows()
    positions = _query_positions(windows, packed.block_lengths, rows)
    return [
        (_Span(0, count, length),) if block_length is None else tuple(_spans_of_blocks(asked, block_length, length))
        for asked, block_length, count, length in zip(positions, packed.block_lengths, counts, lengths, strict=True)
    ]


def _query_positions(
    windows: Sequence[np.ndarray], block_lengths: Sequence[int | None], rows: Rows | None
) -> Sequence[np.ndarray]:
    """Return a position for each query of a window, in the query's block."""
    if rows is None:
        return windows
    counts = rows.counts + (0,) * (len(windows) - len(rows.counts))
    pairs = zip(windows, block_lengths, strict=True)
    if all(length is None or window[0] // length == window[-1] // length for window, length in pairs):
        # So it is for steps over caches, and the device need not be asked which rows these are.
        return [np.repeat(window[:1], count) for window, count in zip(windows, counts, strict=True)]
    return np.split(np.concatenate(windows)[rows.index_R.cpu().numpy()], np.cumsum(counts)[:-1])


def _spans_of_blocks(positions_Q: np.ndarray, block_length: int, num_keys: int) -> Iterator[_Span]:
    """Yield the spans of ascending positions of a sequence, each of a block or of several short ones."""
    blocks_Q = positions_Q // block_length
    start = 0
    blocks: list[tuple[int, int]] = []
    for stop in (*(np.diff(blocks_Q).nonzero()[0] + 1).tolist(), len(positions_Q)):
        if blocks and stop - start > _MOST_MASKED_QUERIES:
            yield _span(start, blocks)
            start, blocks = blocks[-1][0], []
        end = (int(blocks_Q[stop - 1]) + 1) * block_length if stop else 0
        blocks.append((stop, min(end, num_keys)))
    yield _span(start, blocks)


def _span(start: int, blocks: Sequence[tuple[int, int]]) -> _Span:
    stop, num_keys = blocks[-1]
    return _Span(start, stop, num_keys, tuple(blocks) if len(blocks) > 1 else ())


def _cached(packed: PackedTokens, sequence: int, cache: KVCache) -> _Cached:
    window = np.arange(packed.lengths[sequence]) if packed.windows is None else packed.windows[sequence]
    return _Cached.of(cache, window, packed.tokens_T.device)
