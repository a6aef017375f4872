"""Bidirectional attention over a ragged batch."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor


def attend(q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, lengths: Sequence[int]) -> Tensor:
    """Softmax attention in which every position sees its whole sequence and nothing else.

    Args:
        q_THD: queries of H heads.
        k_TKD, v_TKD: keys and values of K heads; head h of the queries reads key head h // (H / K).
        lengths: lengths of the sequences that lie end to end in T.

    Returns:
        [T, H, D]
    """
    groups = q_THD.shape[1] // k_TKD.shape[1]
    if groups > 1:
        k_TKD = k_TKD.repeat_interleave(groups, dim=1)
        v_TKD = v_TKD.repeat_interleave(groups, dim=1)
    outputs = []
    for start, stop, length in _runs_of_equal_length(lengths):
        q, k, v = (x[start:stop].unflatten(0, (-1, length)).transpose(1, 2) for x in (q_THD, k_TKD, v_TKD))
        outputs.append(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(0, 1))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _runs_of_equal_length(lengths: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """(start, stop, length) of neighbours of one length: they go through one call, as a training batch does."""
    start = 0
    for length, run in groupby(lengths):
        stop = start + length * sum(1 for _ in run)
        yield start, stop, length
        start = stop
