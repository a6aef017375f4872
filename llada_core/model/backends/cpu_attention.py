"""Attention on a CPU by plain matrix products, in pieces whose scores stay in the processor's caches.

Torch's own kernel takes nearly twice the time in bfloat16; in float32 it depends on the processor. Shape suffixes
besides those of `packed`: S key heads of all sequences, R queries of a key head, W keys that a mask covers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from llada_core.model.attention import group_queries, hidden_rows

# The scores computed at once. With fewer, products are slow; more leave the caches before the softmax reads them.
_SCORE_BYTES = 2 << 20

# From this many queries on, oneDNN's float32 products are worth the transposed copy of the values that they need.
_MANY_QUERIES = 512

# From this many pieces of a head on, laying keys and values out for oneDNN once is faster than in every product.
_MANY_PIECES = 16

# Queries are divided into multiples of this, so that few shapes meet oneDNN, which compiles a kernel for each.
_QUERIES_MULTIPLE = 16


def attend(
    q_NHQD: Tensor, k_NKLD: Tensor, v_NKLD: Tensor, hidden_QW: Tensor | None = None, *, dtype: torch.dtype
) -> Tensor:
    """Compute softmax attention without a scale, which the queries already have, in `dtype`: [N, H, Q, D].

    Args:
        hidden_QW: which of the last W keys each query does not see; None if it sees all.
    """
    q_NHQD, k_NKLD, v_NKLD = (_contiguous(x, dtype) for x in (q_NHQD, k_NKLD, v_NKLD))
    q_SRD, k_SLD, v_SLD = (x.flatten(0, 1) for x in (group_queries(q_NHQD, k_NKLD.shape[1]), k_NKLD, v_NKLD))
    num_queries, num_keys = q_SRD.shape[1], k_SLD.shape[1]
    most_scores = _SCORE_BYTES // dtype.itemsize
    nothing_RW = torch.empty(num_queries, 0, dtype=torch.bool)
    hidden_RW = nothing_RW if hidden_QW is None else hidden_rows(hidden_QW, num_queries)
    has_onednn = dtype == torch.float32 and num_queries >= _MANY_QUERIES and torch.backends.mkldnn.is_available()
    if has_onednn or num_queries * num_keys > most_scores:
        size = max(most_scores // num_keys // _QUERIES_MULTIPLE, 1) * _QUERIES_MULTIPLE
        attended_SRD = _attend_head_by_head(q_SRD, k_SLD, v_SLD, hidden_RW, size, has_onednn)
    else:
        heads = most_scores // (num_queries * num_keys)
        parts = zip(*(x.split(heads) for x in (q_SRD, k_SLD, v_SLD)), strict=True)
        attended = [torch.bmm(_weights(torch.bmm(q, k.transpose(1, 2)), hidden_RW), v) for q, k, v in parts]
        attended_SRD = attended[0] if len(attended) == 1 else torch.cat(attended)
    return attended_SRD.reshape(q_NHQD.shape)


def _attend_head_by_head(
    q_SRD: Tensor, k_SLD: Tensor, v_SLD: Tensor, hidden_RW: Tensor, size: int, has_onednn: bool
) -> Tensor:
    """Attend with `size` queries of a head at once."""
    multiply = _onednn_linear if has_onednn else F.linear
    attended_SRD = torch.empty_like(q_SRD)
    for q_RD, k_LD, v_LD, attended_RD in zip(q_SRD, k_SLD, v_SLD, attended_SRD, strict=True):
        keys, values = k_LD, v_LD.T
        if has_onednn:
            # oneDNN multiplies by a transposed view with a reference kernel, forty times slower.
            values = values.contiguous()
            if len(q_RD) >= _MANY_PIECES * size:
                keys, values = (torch.ops.mkldnn._reorder_linear_weight(weight, size) for weight in (keys, values))
        pieces = zip(q_RD.split(size), hidden_RW.split(size), attended_RD.split(size), strict=True)
        for queries, hidden, output in pieces:
            output.copy_(multiply(_weights(multiply(queries, keys), hidden), values))
    return attended_SRD


def _weights(scores: Tensor, hidden_RW: Tensor) -> Tensor:
    """Return the softmax of scores [..., R, L] without those of hidden keys; the scores are overwritten."""
    if hidden_RW.shape[1]:
        scores[..., -hidden_RW.shape[1] :].masked_fill_(hidden_RW, -torch.inf)
    return scores.softmax(dim=-1)


def _contiguous(x_NHLD: Tensor, dtype: torch.dtype) -> Tensor:
    """Round to `dtype` and lay each head out by itself, in one pass. `Tensor.to` does neither if the dtype is right."""
    return x_NHLD.to(dtype, memory_format=torch.contiguous_format).contiguous()


def _onednn_linear(x_RE: Tensor, weight_NE: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x_RE, weight_NE, None, "none", [], "")
    return product
