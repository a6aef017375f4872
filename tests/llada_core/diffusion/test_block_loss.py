"""The loss of block-causal models: against the published code, and against each block computed alone."""

from dataclasses import replace

import pytest
import torch

from llada_core.diffusion.loss import masked_cross_entropy, row_losses
from llada_core.diffusion.noise import Corrupted
from llada_core.model import doubled_attention
from llada_core.model.packed import PackedTokens
from tests.llada_core.model.architectures.test_family import cases, network_of

BLOCK = 4


@pytest.fixture(params=[("sdar", "tiny-8b-like"), ("llada2_moe", "tiny-mini-like")], ids=str)
def network(request, monkeypatch):
    return with_blocks(network_of(*request.param), BLOCK, monkeypatch)


def with_blocks(network, block_length, monkeypatch):
    monkeypatch.setattr(network, "shape", replace(network.shape, block_length=block_length))
    return network


@pytest.fixture(params=[512, 8])
def tile(request, monkeypatch):
    """How many positions are computed at once."""
    monkeypatch.setattr(doubled_attention, "_TILE", request.param)


def a_batch(network, *, seed=0, shape=(3, 14)):
    generator = torch.Generator().manual_seed(seed)
    tokens_BL = torch.randint(5, 90, shape, generator=generator)
    masked_BL = torch.rand(shape, generator=generator) < 0.5
    masked_BL[:, :3] = False
    noisy_BL = torch.where(masked_BL, network.special_tokens.mask_id, tokens_BL)
    return tokens_BL, Corrupted(noisy_BL, masked_BL, torch.linspace(0.3, 0.9, len(tokens_BL)))


def gradients_of(network, loss):
    loss.backward()
    gradients = {name: weight.grad.clone() for name, weight in network.named_parameters()}
    network.zero_grad()
    return gradients


def block_by_block(network, tokens_BL, corrupted, lengths):
    """Every block after the clean ones before it, one at a time, through the block-causal network: float32 [R]."""
    found = []
    for clean_L, noisy_L, masked_L, length in zip(
        tokens_BL, corrupted.tokens_BL, corrupted.masked_BL, lengths, strict=True
    ):
        for start in range(0, length, BLOCK):
            block = slice(start, min(start + BLOCK, length))
            sequence_T = torch.cat((clean_L[:start], noisy_L[block]))
            packed = PackedTokens(sequence_T, (len(sequence_T),), block_lengths=(BLOCK,))
            logits_LV = network.head(network.hidden_states(packed)[start:])[masked_L[block]]
            found.append(
                torch.nn.functional.cross_entropy(logits_LV, clean_L[block][masked_L[block]], reduction="none")
            )
    return torch.cat(found)


@pytest.mark.usefixtures("tile")
@pytest.mark.parametrize(("family", "case"), [case for case in cases("loss") if case.values[0] == "llada2_moe"])
def test_losses_and_gradients_equal_the_published_code(family, case, monkeypatch):
    network = with_blocks(network_of(family, case["model"]), case["block_length"], monkeypatch)
    masked_BL = torch.tensor(case["masked_positions"]).bool()
    corrupted = Corrupted(torch.tensor(case["noisy_ids"]), masked_BL, torch.ones(len(masked_BL)))
    tokens_BL = torch.tensor(case["input_ids"])
    loss = masked_cross_entropy(network, tokens_BL, corrupted).mean()
    assert loss.item() == pytest.approx(case["loss"], rel=1e-5)
    norms = {name: gradient.norm().item() for name, gradient in gradients_of(network, loss).items()}
    assert norms == {name: pytest.approx(norm, rel=1e-3, abs=1e-6) for name, norm in case["grad_l2_norm"].items()}
    assert torch.tensor(list(norms.values())).norm().item() == pytest.approx(case["grad_l2_norm_total"], rel=1e-4)


@pytest.mark.usefixtures("tile")
def test_losses_and_gradients_equal_those_of_each_block_computed_alone(network):
    tokens_BL, corrupted = a_batch(network)
    found_R = masked_cross_entropy(network, tokens_BL, corrupted)
    expected_R = block_by_block(network, tokens_BL, corrupted, [14] * 3)
    torch.testing.assert_close(found_R, expected_R, atol=1e-5, rtol=1e-5)
    weights_R = torch.rand(len(found_R))
    ours, theirs = (gradients_of(network, (losses_R * weights_R).sum()) for losses_R in (found_R, expected_R))
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], atol=1e-5, rtol=1e-4, msg=name)


def test_padding_never_matters_and_a_batch_is_its_rows_one_by_one(network):
    tokens_BL, corrupted = a_batch(network)
    lengths = (14, 9, 12)
    for row, length in enumerate(lengths):
        corrupted.masked_BL[row, length:] = False
    spans = [(5, 9), (9,), (12,)]
    together_B = row_losses(network, tokens_BL, corrupted, spans=spans)
    other_BL = torch.where(torch.arange(14) < torch.tensor(lengths).unsqueeze(1), tokens_BL, 7)
    noisy_BL = torch.where(corrupted.masked_BL, corrupted.tokens_BL, other_BL)
    padded = Corrupted(noisy_BL, corrupted.masked_BL, corrupted.p_mask_B)
    assert torch.equal(row_losses(network, other_BL, padded, spans=spans), together_B)
    parts = [(0, slice(0, 5)), (0, slice(5, 14)), (1, slice(0, 9)), (2, slice(0, 12))]
    alone = [
        row_losses(
            network,
            tokens_BL[row : row + 1, part],
            Corrupted(
                corrupted.tokens_BL[row : row + 1, part],
                corrupted.masked_BL[row : row + 1, part],
                corrupted.p_mask_B[row : row + 1],
            ),
        )
        for row, part in parts
    ]
    expected_B = torch.cat((alone[0] + alone[1], *alone[2:]))
    torch.testing.assert_close(together_B, expected_B, atol=1e-4, rtol=1e-5)


def test_a_blocks_loss_does_not_depend_on_later_blocks_nor_on_masks_before_it(network):
    tokens_BL, corrupted = a_batch(network, shape=(1, 16))
    found_R = masked_cross_entropy(network, tokens_BL, corrupted)
    is_second_L = torch.arange(16) // BLOCK == 1
    later_BL = torch.where(torch.arange(16) >= 2 * BLOCK, (tokens_BL + 11) % 90, tokens_BL)
    masked_BL = torch.where(is_second_L, corrupted.masked_BL, ~corrupted.masked_BL)
    changed = Corrupted(torch.where(masked_BL, network.special_tokens.mask_id, later_BL), masked_BL, torch.ones(1))
    changed_R = masked_cross_entropy(network, later_BL, changed)
    of_block, of_changed = (
        is_second_L[mask_BL[0].nonzero().squeeze(1)] for mask_BL in (corrupted.masked_BL, masked_BL)
    )
    assert of_block.any()
    torch.testing.assert_close(changed_R[of_changed], found_R[of_block], atol=1e-5, rtol=1e-5)
