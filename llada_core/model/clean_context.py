"""Attention of noisy windows to a clean context, by which answers of a block-causal model are scored: a position sees
the clean blocks before its own, and its own block in its window.

The context's keys and values are computed once and shared by all windows, so a window costs what it is long, whatever
lies before it. Training needs gradients of the context too, and attends in another way (`doubled_attention`).

Shape suffixes besides those of `packed`: N windows, W the last keys, of which a query does not see all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from llada_core.model.attention import AttentionPlan, Kernel, masked_dot_product
from llada_core.model.packed import PackedTokens, Rows

# Positions that attend together, if a block is not longer. More of them mean fewer copies of the context's keys, and
# more pairs that are computed in vain.
_TILE = 256


@dataclass(frozen=True, slots=True)
class _Span:
    """Queries of a window that attend together.

    Attributes:
        queries: their places among the queries of a window.
        num_clean: the keys of the context, from its first on.
        own: the keys of the window.
        hidden_QW: which of the last keys each query does not see; None for a single block, which sees all of them.
    """

    queries: slice
    num_clean: int
    own: slice
    hidden_QW: Tensor | None


@dataclass(frozen=True, slots=True)
class _Run:
    """Adjacent windows whose queries are at the same positions.

    Attributes:
        queries, keys: their places in the packed batch.
    """

    queries: slice
    keys: slice
    num_windows: int
    spans: tuple[_Span, ...]


class CleanContextAttention:
    """The attention pattern of a batch of noisy windows, built once per forward pass and used by all layers."""

    def __init__(self, packed: PackedTokens, rows: Rows | None = None) -> None:
        """
        Args:
            rows: the positions that have queries; None for all of them.
        """
        assert packed.context is not None
        self._context = packed.context
        self._runs = list(_runs(packed, rows))

    def attend(self, q_QHD: Tensor, k_TKD: Tensor, v_TKD: Tensor, layer: int, kernel: Kernel | None = None) -> Tensor:
        """Compute softmax attention to what a position sees: [Q, H, D]. See `AttentionPlan.attend`."""
        kernel = kernel or masked_dot_product
        outputs = []
        for run in self._runs:
            q_NHQD = _batched(q_QHD[run.queries], run.num_windows)
            own = [_batched(x[run.keys].to(self._context.dtype), run.num_windows) for x in (k_TKD, v_TKD)]
            attended = []
            for span in run.spans:
                k_NKLD, v_NKLD = (
                    torch.cat((clean_KLD.expand(run.num_windows, -1, -1, -1), x_NKLD[:, :, span.own]), dim=2)
                    for clean_KLD, x_NKLD in zip(self._context.first(layer, span.num_clean), own, strict=True)
                )
                masks = () if span.hidden_QW is None else (span.hidden_QW,)
                attended.append(kernel(q_NHQD[:, :, span.queries], k_NKLD, v_NKLD, *masks))
            outputs.append(torch.cat(attended, dim=2).transpose(1, 2).flatten(0, 1))
        # Padding attends to nothing; its output is ignored.
        num_padding = len(q_QHD) - sum(map(len, outputs))
        return torch.cat((*outputs, outputs[0].new_zeros(num_padding, *q_QHD.shape[1:])))


InferencePattern = AttentionPlan | CleanContextAttention


def inference_pattern(packed: PackedTokens, rows: Rows | None = None) -> InferencePattern:
    """Return the attention pattern of a batch without copies; `rows` as for `AttentionPlan`."""
    return AttentionPlan(packed, rows) if packed.context is None else CleanContextAttention(packed, rows)


def _runs(packed: PackedTokens, rows: Rows | None) -> Iterator[_Run]:
    assert packed.windows is not None
    assert packed.block_lengths is not None
    window, block_length, device = packed.windows[0], packed.block_lengths[0], packed.tokens_T.device
    assert block_length is not None
    num_windows = sum(length is not None for length in packed.block_lengths)
    query = key = 0
    for positions, same in groupby(_query_positions(window, num_windows, rows), key=tuple):
        size = sum(1 for _ in same)
        queries, keys = slice(query, query + size * len(positions)), slice(key, key + size * len(window))
        query, key = queries.stop, keys.stop
        if positions:
            spans = _spans(np.array(positions), range(int(window[0]), int(window[-1]) + 1), block_length, device)
            yield _Run(queries, keys, size, tuple(spans))


def _query_positions(window: np.ndarray, num_windows: int, rows: Rows | None) -> Sequence[np.ndarray]:
    """Return the ascending positions of each window's queries."""
    if rows is None:
        return [window] * num_windows
    index_R = rows.index_R.cpu().numpy() % len(window)
    return np.split(window[index_R], np.cumsum(rows.counts)[:-1])


def _spans(positions_Q: np.ndarray, window: range, block_length: int, device: torch.device) -> Iterator[_Span]:
    size = max(1, _TILE // block_length) * block_length
    for start in range(window.start, window.stop, size):
        stop = min(start + size, window.stop)
        queries = slice(*np.searchsorted(positions_Q, (start, stop)).tolist())
        if queries.start == queries.stop:
            continue
        num_clean = (stop - 1) // block_length * block_length
        blocks_Q1 = positions_Q[queries, None] // block_length
        clean_W, own_W = (np.arange(start, end) // block_length for end in (num_clean, stop))
        hidden_QW = np.concatenate((clean_W >= blocks_Q1, own_W != blocks_Q1), axis=1)
        hidden = torch.from_numpy(hidden_QW).to(device) if len(clean_W) else None
        yield _Span(queries, num_clean, slice(start - window.start, stop - window.start), hidden)


def _batched(x_THD: Tensor, num_windows: int) -> Tensor:
    return x_THD.unflatten(0, (num_windows, -1)).transpose(1, 2)
