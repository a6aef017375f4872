"""The attention implementations, compared with each other."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import varlen

from llada_core.model import attention
from llada_core.model.architectures.llada.config import LLaDAConfig
from llada_core.model.attention import AttentionPlan, _joined, _Offsets, masked_dot_product, scaled_dot_product
from llada_core.model.backends.cpu_attention import attend
from llada_core.model.kv_cache import KVCache
from llada_core.model.packed import PackedTokens, Rows

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
        # The second sequence is a window of four positions, not all adjacent, over a cache of nine.
        cache = KVCache(CONFIG.shape, 9, dtype=torch.bfloat16, device=torch.device("cpu"))
        cache.replace(0, slice(9), torch.ones(9, 2, 8), torch.ones(9, 2, 8))
        windows = (np.arange(lengths[0]), np.array([0, 3, 4, 8]), np.arange(lengths[2]))
        packed = PackedTokens(torch.zeros(16, dtype=torch.long), lengths, windows, (None, cache, None))
        plan = AttentionPlan(packed, row_counts and Rows.of(packed, [np.arange(count) for count in row_counts]))
        if is_varied:  # as on a GPU
            plan._offsets = _Offsets.of(plan._runs, packed.tokens_T.device)
        attended.append(plan.attend(q_QHD, k_TKD, v_TKD, 0))
    torch.testing.assert_close(attended[0], attended[1], atol=1e-2, rtol=0)


def masked(q_QHD, k_LKD, v_LKD, positions_Q, block_length):
    """Attention to the blocks up to a position's own, by a mask over all keys."""
    is_seen_QL = torch.from_numpy(np.arange(len(k_LKD)) // block_length <= (positions_Q // block_length)[:, None])
    q, k, v = (x.transpose(0, 1)[None] for x in (q_QHD, k_LKD, v_LKD))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=is_seen_QL, enable_gqa=True)[0].transpose(0, 1)


@pytest.mark.parametrize("has_rows", [False, True])
@pytest.mark.parametrize(("is_varied", "most_together"), [(False, 1), (False, 6), (False, 128), (True, 1)], ids=str)
@torch.inference_mode()
def test_block_causal_attention_is_the_masked_one_in_any_batch(monkeypatch, has_rows, is_varied, most_together):
    monkeypatch.setattr(varlen, "varlen_attn", one_by_one)
    monkeypatch.setattr(attention, "_MOST_MASKED_QUERIES", most_together)
    torch.manual_seed(0)
    lengths, block_lengths = (10, 10, 5, 9, 4), (4, 3, None, 3, 4)
    # The fourth sequence has cached keys for its first block, and its window is the next three; the fifth one's is its
    # second block. What lies behind them was never written.
    caches = (None,) * 3 + tuple(KVCache(CONFIG.shape, size, dtype=torch.float32, device="cpu") for size in (14, 9))
    cached = {}
    windows = (np.arange(10), np.arange(10), np.arange(5), np.arange(3, 12), np.arange(4, 8))
    for number, length in ((3, 3), (4, 4)):
        cached[number] = torch.randn(2, length, 2, 8)
        caches[number].replace(0, slice(None), *torch.full((2, caches[number].length, 2, 8), torch.nan))
        caches[number].replace(0, slice(length), *cached[number])
    packed = PackedTokens(torch.zeros(sum(lengths), dtype=torch.long), lengths, windows, caches, block_lengths)
    every = [np.arange(length) for length in lengths]
    asked = [np.array([2, 5, 9]), np.array([0, 9]), np.array([1]), np.array([0, 1, 8]), np.array([3])]
    asked = asked if has_rows else every
    q_THD, (k_TKD, v_TKD) = torch.randn(sum(lengths), 4, 8), torch.randn(2, sum(lengths), 2, 8)
    rows = Rows.of(packed, asked)
    plan = AttentionPlan(packed, rows if has_rows else None)
    if is_varied:  # as on a GPU
        plan._offsets = _Offsets.of(plan._runs, packed.tokens_T.device)
        found = plan._attend_at_once(q_THD[rows.index_R], k_TKD, v_TKD, 0)
    else:
        found = plan.attend(q_THD[rows.index_R], k_TKD, v_TKD, 0)
    expected, pieces = [], (q_THD.split(lengths), k_TKD.split(lengths), v_TKD.split(lengths))
    for number, (q, *keys_and_values) in enumerate(zip(*pieces, strict=True)):
        before = cached.get(number, torch.empty(2, 0, 2, 8))
        k, v = (torch.cat(pair) for pair in zip(before, keys_and_values, strict=True))
        index = asked[number]
        expected.append(masked(q[index], k, v, windows[number][index], block_lengths[number] or 99))
    torch.testing.assert_close(found, torch.cat(expected))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kernel", [masked_dot_product, partial(attend, dtype=torch.float32)], ids=["torch", "cpu"])
def test_blocks_that_attend_together_have_the_result_of_one_by_one_and_its_gradient(monkeypatch, kernel, dtype):
    results = []
    for most_together in (1, 128):
        monkeypatch.setattr(attention, "_MOST_MASKED_QUERIES", most_together)
        torch.manual_seed(0)
        q_THD, k_TKD, v_TKD = (torch.randn(44, heads, 8, dtype=dtype, requires_grad=True) for heads in (4, 2, 2))
        packed = PackedTokens(torch.zeros(44, dtype=torch.long), (22, 22), block_lengths=(4, 4))
        plan = AttentionPlan(packed)
        assert [len(run.spans) for run in plan._runs] == ([6, 6] if most_together == 1 else [1])
        attended = plan.attend(q_THD, k_TKD, v_TKD, 0, kernel=kernel)
        if kernel is masked_dot_product:
            attended.float().square().sum().backward()
            results.append([attended, q_THD.grad, k_TKD.grad, v_TKD.grad])
        else:
            results.append([attended])
    tolerance = 1e-5 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(results[1], results[0], atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("num_key_heads", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 7, 64])
def test_in_training_on_a_cpu_plain_products_have_the_fused_kernels_result_and_gradient(num_key_heads, length):
    torch.manual_seed(0)
    shapes = (3, 4, length, 8), (3, num_key_heads, length, 8), (3, num_key_heads, length, 8)
    values = [torch.randn(shape) for shape in shapes]
    weights = torch.randn(shapes[0])

    def result_and_gradients(dtype, attend):
        inputs = [x.to(dtype, copy=True).requires_grad_() for x in values]
        output = attend(*inputs)
        (output.float() * weights).sum().backward()
        return output.float(), *(x.grad.float() for x in inputs)

    def fused(q, k, v):
        return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)

    exact = result_and_gradients(torch.float32, fused)
    rounded = result_and_gradients(torch.bfloat16, fused)
    for own, kernels, true in zip(
        result_and_gradients(torch.bfloat16, scaled_dot_product), rounded, exact, strict=True
    ):
        # As near to the exact value as torch's own kernel in the same dtype.
        assert (own - true).abs().max() <= 1.5 * (kernels - true).abs().max() + 0.02


def test_inference_and_long_sequences_use_the_fused_kernel(monkeypatch):
    fused = []
    kernel = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda *qkv: fused.append(1) or kernel(*qkv))
    short, long = torch.zeros(1, 1, 4, 8, dtype=torch.bfloat16), torch.zeros(1, 1, 513, 8, dtype=torch.bfloat16)
    scaled_dot_product(short, short, short)
    assert not fused
    scaled_dot_product(short.float(), short.float(), short.float())
    scaled_dot_product(long, long, long)
    with torch.no_grad():
        scaled_dot_product(short, short, short)
    assert len(fused) == 3


def test_small_cached_windows_of_one_shape_are_joined(monkeypatch):
    def qkv(num_queries, num_keys):
        return tuple(torch.randn(1, 2, length, 8) for length in (num_queries, num_keys, num_keys))

    inputs = [qkv(3, 9), qkv(3, 9), qkv(4, 9), qkv(4, 10), qkv(4, 10), qkv(4, 10), qkv(3, 9)]
    joined = list(_joined(inputs))
    assert [len(q) for q, _, _ in joined] == [2, 1, 3, 1]
    for place in range(3):
        together = [row for parts in joined for row in parts[place]]
        assert all(torch.equal(row, parts[place][0]) for row, parts in zip(together, inputs, strict=True))
    monkeypatch.setattr(attention, "_MOST_JOINED_BYTES", inputs[0][1].nbytes)
    assert [len(q) for q, _, _ in _joined(inputs)] == [2, 1, 1, 1, 1, 1]
