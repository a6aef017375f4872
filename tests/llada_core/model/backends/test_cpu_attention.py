"""The CPU's attention against torch's own, whatever way it divides the work."""

import pytest
import torch
import torch.nn.functional as F

from llada_core.model.backends import cpu_attention
from llada_core.model.backends.cpu_attention import attend

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 0.05, torch.float16: 0.01}


def inputs(num_sequences, num_heads, num_key_heads, num_queries, num_keys, head_dim=16):
    """Queries, keys and values as a model has them: heads lie side by side within a position."""
    generator = torch.Generator().manual_seed(num_queries * 31 + num_keys)
    shapes = (num_queries, num_heads), (num_keys, num_key_heads), (num_keys, num_key_heads)
    return tuple(
        torch.randn(num_sequences, length, heads, head_dim, generator=generator).transpose(1, 2)
        for length, heads in shapes
    )


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("score_bytes", [1, 4000, 1 << 21], ids=["rows", "heads", "all at once"])
@pytest.mark.parametrize(
    "shape",
    [(1, 4, 4, 30, 30), (3, 4, 2, 17, 17), (1, 4, 1, 1, 41), (2, 2, 2, 33, 1), (1, 4, 2, 32, 129), (1, 1, 1, 1, 1)],
    ids=str,
)
@torch.inference_mode()
def test_any_division_has_the_result_of_torchs_kernel(monkeypatch, shape, score_bytes, dtype):
    monkeypatch.setattr(cpu_attention, "_SCORE_BYTES", score_bytes)
    q, k, v = inputs(*shape)
    expected = F.scaled_dot_product_attention(q, k, v, scale=1.0, enable_gqa=True)
    found = attend(q, k, v, dtype=dtype)
    assert found.dtype == dtype
    # Scores are not scaled here, so they are large and low precision rounds them by much.
    torch.testing.assert_close(found.float(), expected, atol=TOLERANCES[dtype] * 10, rtol=0)


@pytest.mark.parametrize("score_bytes", [1, 4000, 1 << 21], ids=["rows", "heads", "all at once"])
@pytest.mark.parametrize("shape", [(1, 4, 2, 30, 41), (3, 4, 1, 17, 17), (1, 2, 1, 600, 650)], ids=str)
@torch.inference_mode()
def test_hidden_keys_have_no_weight_in_any_division(monkeypatch, shape, score_bytes):
    monkeypatch.setattr(cpu_attention, "_SCORE_BYTES", score_bytes)
    q, k, v = inputs(*shape)
    num_queries, num_keys = shape[3:]
    hidden = torch.rand(num_queries, 11) < 0.5
    is_seen = F.pad(~hidden, (num_keys - 11, 0), value=True)
    expected = F.scaled_dot_product_attention(q, k, v, is_seen, scale=1.0, enable_gqa=True)
    torch.testing.assert_close(attend(q, k, v, hidden, dtype=torch.float32), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("num_queries", [511, 512, 700])
@pytest.mark.parametrize("many_pieces", [1, 1000], ids=["packed", "plain"])
@torch.inference_mode()
def test_many_queries_in_float32_have_the_same_result(monkeypatch, num_queries, many_pieces):
    monkeypatch.setattr(cpu_attention, "_MANY_PIECES", many_pieces)
    monkeypatch.setattr(cpu_attention, "_SCORE_BYTES", 300_000)
    q, k, v = inputs(2, 2, 1, num_queries // 2, 333)
    expected = F.scaled_dot_product_attention(q, k, v, scale=1.0, enable_gqa=True)
    torch.testing.assert_close(attend(q, k, v, dtype=torch.float32), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("length", [40, 520])
@torch.inference_mode()
def test_a_sequence_has_the_same_result_alone_and_beside_others(dtype, length):
    q, k, v = inputs(5, 3, 3, length, length)
    together = attend(q, k, v, dtype=dtype)
    for index in range(5):
        alone = attend(q[index : index + 1], k[index : index + 1], v[index : index + 1], dtype=dtype)
        torch.testing.assert_close(together[index : index + 1], alone, atol=0, rtol=0)


@pytest.mark.parametrize("shape", [(8, 4, 4, 64, 64), (1, 4, 4, 1000, 900), (1, 8, 2, 300, 900)], ids=str)
@torch.inference_mode()
def test_the_scores_of_one_product_are_bounded(monkeypatch, shape):
    monkeypatch.setattr(cpu_attention, "_SCORE_BYTES", 100_000)
    seen = []
    softmax = torch.Tensor.softmax
    monkeypatch.setattr(torch.Tensor, "softmax", lambda x, dim: seen.append(x.nbytes) or softmax(x, dim))
    attend(*inputs(*shape), dtype=torch.float32)
    assert max(seen) <= 100_000
    assert sum(seen) == shape[0] * shape[1] * shape[3] * shape[4] * 4
