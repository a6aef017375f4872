"""Attention over noisy sequences and their clean copies, compared with one mask over all pairs of positions."""

import pytest
import torch
import torch.nn.functional as F

from llada_core.model import doubled_attention
from llada_core.model.attention import AttentionPlan
from llada_core.model.doubled_attention import DoubledAttention
from llada_core.model.packed import PackedTokens


def packed_of(lengths, block_length):
    tokens_T = torch.zeros(sum(lengths), dtype=torch.long)
    return PackedTokens.doubled(tokens_T, tokens_T, lengths, block_length)


def published_mask(lengths, block_length):
    """Which positions of [noisy | clean] each of them sees, as the authors build it."""
    sequences_T = torch.tensor([number for number, length in enumerate(lengths) for _ in range(length)])
    blocks_T = torch.cat([torch.arange(length) // block_length for length in lengths])
    is_same = sequences_T.unsqueeze(1) == sequences_T
    is_own = is_same & (blocks_T.unsqueeze(1) == blocks_T)
    is_before = is_same & (blocks_T.unsqueeze(1) > blocks_T)
    nothing = torch.zeros_like(is_own)
    return torch.cat((torch.cat((is_own, is_before), dim=1), torch.cat((nothing, is_own | is_before), dim=1)))


def masked(q_THD, k_TKD, v_TKD, is_seen_TT):
    q, k, v = (x.transpose(0, 1)[None] for x in (q_THD, k_TKD, v_TKD))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=is_seen_TT, enable_gqa=True)[0].transpose(0, 1)


@pytest.mark.parametrize("tile", [512, 8, 5])
@pytest.mark.parametrize(
    ("lengths", "block_length"),
    [((10, 10, 7, 24), 4), ((33,), 8), ((12, 12), 3), ((5, 1, 1), 1), ((9, 9), 100)],
    ids=str,
)
def test_tiles_have_the_result_and_the_gradients_of_one_mask(monkeypatch, lengths, block_length, tile):
    monkeypatch.setattr(doubled_attention, "_TILE", tile)
    torch.manual_seed(0)
    packed = packed_of(lengths, block_length)
    inputs = [torch.randn(len(packed.tokens_T), heads, 8, requires_grad=True) for heads in (4, 2, 2)]
    pattern = DoubledAttention(packed)
    found = pattern.attend(*inputs, 0)
    expected = masked(*inputs, published_mask(lengths, block_length))
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(found)
    for ours, theirs in zip(
        *(torch.autograd.grad((x * weights).sum(), inputs) for x in (found, expected)), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    # Another layer finds the masks made.
    assert torch.equal(pattern.attend(*inputs, 1), found)


@pytest.mark.parametrize("num_positions", [8, 600])
def test_in_bfloat16_it_is_as_near_as_the_kernels_are(num_positions):
    torch.manual_seed(0)
    packed = packed_of((num_positions,), 4)
    q, k, v = (torch.randn(2 * num_positions, heads, 8) for heads in (4, 2, 2))
    expected = masked(q, k, v, published_mask((num_positions,), 4))
    found = DoubledAttention(packed).attend(*(x.bfloat16().requires_grad_() for x in (q, k, v)), 0)
    with torch.autocast("cpu", torch.bfloat16):
        cast = DoubledAttention(packed).attend(q.requires_grad_(), k, v, 0)
    for close in (found, cast):
        torch.testing.assert_close(close.float(), expected, atol=0.03, rtol=0.03)


def test_no_mask_is_larger_than_a_tile_and_its_keys():
    pattern = DoubledAttention(packed := packed_of((2048, 2048), 32))
    q, k, v = (torch.randn(len(packed.tokens_T), heads, 4) for heads in (2, 1, 1))
    pattern.attend(q, k, v, 0)
    # Two queries of a head for each position of a tile, noisy and clean, on the keys of 2,048 positions and a tile.
    assert [tuple(bias.shape) for bias in pattern._biases.values()] == [(2 * 2 * 512, 2048 + 512)]


def test_what_knows_no_copies_refuses_a_batch_that_has_them():
    packed = packed_of((4,), 2)
    with pytest.raises(AssertionError):
        AttentionPlan(packed)
    # As the packed weights of a CPU do first.
    with pytest.raises(AssertionError):
        packed.padded(8)
