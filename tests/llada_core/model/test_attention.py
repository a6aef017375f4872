"""The attention implementations, compared with each other."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import varlen

from llada_core.model.architectures.llada.config import LLaDAConfig
from llada_core.model.attention import AttentionPlan, _Offsets
from llada_core.model.kv_cache import KVCache
from llada_core.model.packed import PackedTokens

CONFIG = LLaDAConfig(d_model=32, n_heads=4, n_kv_heads=2, n_layers=1, mlp_hidden_size=8, vocab_size=9)


def one_by_one(q_QHD, k_TKD, v_TKD, query_offsets, key_offsets, longest_query, longest_key, *, enable_gqa):
    """Compute the result of `varlen_attn`, which has no CPU kernel, one sequence at a time."""
    assert query_offsets.dtype == key_offsets.dtype == torch.int32
    outputs = []
    for queries, keys in zip(pairwise(query_offsets), pairwise(key_offsets), strict=True):
        q, k, v = (x[slice(*ends)].transpose(0, 1) for x, ends in ((q_QHD, queries), (k_TKD, keys), (v_TKD, keys)))
        assert q.shape[1] <= longest_query and k.shape[1] <= longest_key
        outputs.append(F.scaled_dot_product_attention(q[None], k[None], v[None], enable_gqa=enable_gqa)[0])
    return torch.cat([output.transpose(0, 1) for output in outputs])


@pytest.mark.parametrize("row_counts", [None, (2, 1, 3)])
@torch.inference_mode()
def test_the_variable_length_kernel_is_given_what_the_dense_one_sees(monkeypatch, row_counts):
    monkeypatch.setattr(varlen, "varlen_attn", one_by_one)
    torch.manual_seed(0)
    lengths = (5, 4, 7)
    counts = row_counts or lengths
    q_QHD = torch.randn(sum(counts), 4, 8, dtype=torch.bfloat16)
    k_TKD, v_TKD = torch.randn(2, sum(lengths), 2, 8, dtype=torch.bfloat16)
    attended = []
    for is_varied in (False, True):
        # The second sequence is a window of four over a cache of nine.
        cache = KVCache(CONFIG.shape, 9, dtype=torch.bfloat16, device=torch.device("cpu"))
        cache.replace(0, 0, torch.ones(9, 2, 8), torch.ones(9, 2, 8))
        packed = PackedTokens(torch.zeros(16, dtype=torch.long), lengths, (0, 3, 0), (None, cache, None))
        plan = AttentionPlan(packed, row_counts)
        if is_varied:  # as on a GPU
            plan._offsets = _Offsets.of(packed, counts)
        attended.append(plan.attend(q_QHD, k_TKD, v_TKD, 0))
    torch.testing.assert_close(attended[0], attended[1], atol=1e-2, rtol=0)
