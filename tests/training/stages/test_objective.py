"""The loss of the real data path against the golden vectors, and against itself divided in different ways."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from llada_core.diffusion.loss import masked_cross_entropy, row_losses
from llada_core.diffusion.noise import Corrupted
from tests.conftest import GOLDEN_CASES
from tests.llada_core.model.architectures.test_family import network_of
from tests.training.fake_samples import EOS, batches_of, samples_of
from training.data.batches import Batching
from training.data.samples import Sample
from training.stages.objective import Objective, corrupt_batch
from training.stages.pretrain import Pretraining
from training.stages.sft import SFT


@dataclass
class Recorded:
    """A golden batch as training samples."""

    case: dict

    def __post_init__(self):
        rows = self.case["input_ids"]
        self.starts = self.case.get("prompt_lengths") or [0] * len(rows)
        self.rows = [np.array(row, dtype=np.int32) for row in rows]
        self.lengths = np.array([len(row) for row in self.rows])
        self.prompt_lengths = np.array(self.starts)
        self.suffix_lengths = np.zeros_like(self.prompt_lengths)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return Sample(self.rows[index], self.starts[index], 0, (len(self.rows[index]),))


def batch_of(case, model):
    stage = Pretraining(64) if case["kind"] == "pretrain" else SFT(64)
    batching = Batching(len(case["input_ids"]), seed=0, eos_id=model.special_tokens.eos_id)
    planner = stage.planner(Recorded(case), batching)
    return planner.collate(planner.plan(0), slice(None))


@pytest.mark.parametrize("case", GOLDEN_CASES["loss"], ids=lambda case: case["id"])
def test_golden_losses_through_the_data_path(golden_networks, monkeypatch, case):
    model = golden_networks[case["model"]]
    batch = batch_of(case, model)
    t = torch.tensor(case["t"])[batch.samples_B]
    masked = torch.tensor(case["bernoulli_mask"]).bool()[batch.samples_B]
    probability = ((1 - 1e-3) * t.double() + 1e-3).unsqueeze(1)
    batch = replace(batch, noise_levels_B=t.double())
    monkeypatch.setattr(
        "training.stages.objective.corruption_draws",
        lambda *coordinates: torch.where(masked, probability - 1e-9, probability),
    )
    loss, _ = Objective(model, mask_id=model.special_tokens.mask_id, seed=0, noise=model.shape.training)(batch)
    assert loss.item() == pytest.approx(case["loss"], rel=1e-5)
    corrupted, _, _ = corrupt_batch(batch, mask_id=model.special_tokens.mask_id, seed=0)
    assert torch.equal(corrupted.tokens_BL, torch.tensor(case["noisy_ids"])[batch.samples_B])


def test_spans_give_the_loss_of_computing_them_one_by_one(tiny_network):
    torch.manual_seed(0)
    tokens_BL = torch.randint(5, 90, (2, 12))
    masked_BL = torch.rand(2, 12) < 0.5
    masked_BL[1, 9:] = False
    corrupted = Corrupted(
        torch.where(masked_BL, tiny_network.special_tokens.mask_id, tokens_BL), masked_BL, torch.ones(2)
    )
    together = row_losses(tiny_network, tokens_BL, corrupted, spans=((5, 7), (9,))).sum()
    one_by_one = torch.zeros((), dtype=torch.float64)
    for row, part in ((0, slice(0, 5)), (0, slice(5, 12)), (1, slice(0, 9))):
        corrupted_part = Corrupted(corrupted.tokens_BL[row, part][None], masked_BL[row, part][None], torch.ones(1))
        one_by_one += row_losses(tiny_network, tokens_BL[row, part][None], corrupted_part).sum()
    torch.testing.assert_close(together, one_by_one)


def test_activation_checkpointing_changes_no_gradient(tiny_network):
    import copy

    case = GOLDEN_CASES["loss"][0]
    gradients = []
    for is_checkpointed in (False, True):
        model = copy.deepcopy(tiny_network).requires_grad_(True).train()
        model.special_tokens = tiny_network.special_tokens
        if is_checkpointed:
            model.recompute_blocks()
        objective = Objective(
            model, mask_id=tiny_network.special_tokens.mask_id, seed=3, noise=tiny_network.shape.training
        )
        objective(batch_of(case, tiny_network)).loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(first, second) for first, second in zip(*gradients, strict=True))


def test_a_row_of_llada2_has_the_mean_of_its_masks_as_its_loss():
    network = network_of("llada2_moe", "tiny-mini-like")
    (batch,) = batches_of(SFT(64).planner(samples_of(9, 12, 12, prompt=2), Batching(3, seed=0, eos_id=EOS)), 1)
    corrupted, _, p_B = corrupt_batch(batch, mask_id=159, seed=0, training=network.shape.training)
    assert ((p_B > 0.3) & (p_B < 0.8)).all() and torch.equal(p_B, 0.3 + 0.5 * batch.noise_levels_B)
    loss, figures = Objective(network, mask_id=159, seed=0, noise=network.shape.training)(batch)
    losses_R = masked_cross_entropy(network, batch.tokens_BL, corrupted)
    rows = losses_R.split(corrupted.masked_BL.sum(dim=1).tolist())
    assert loss.item() == pytest.approx(torch.stack([row.mean() for row in rows]).mean().item(), rel=1e-5)
    assert figures["loss_by_noise_level"][1, 3:8].sum() == 3


def test_targets_that_are_always_masked_weigh_one_each(tiny_network):
    mask_id = tiny_network.special_tokens.mask_id
    (batch,) = batches_of(SFT(64).planner(samples_of(9, 12, 12, prompt=2), Batching(3, seed=0, eos_id=EOS)), 1)
    noise = tiny_network.shape.training.within(1.0, None)
    corrupted, is_target_BL, p_B = corrupt_batch(batch, mask_id=mask_id, seed=0, training=noise)
    assert torch.equal(corrupted.masked_BL, is_target_BL) and (p_B == 1).all()
    loss, _ = Objective(tiny_network, mask_id=mask_id, seed=0, noise=noise)(batch)
    rows = masked_cross_entropy(tiny_network, batch.tokens_BL, corrupted).split(is_target_BL.sum(dim=1).tolist())
    assert loss.item() == pytest.approx(torch.stack([row.mean() for row in rows]).mean().item(), rel=1e-5)


@pytest.mark.parametrize("is_checkpointed", [False, True])
def test_checkpointing_and_bfloat16_keep_the_gradients_of_a_block_causal_model(monkeypatch, is_checkpointed):
    monkeypatch.setattr("llada_core.model.doubled_attention._TILE", 8)
    network = network_of("sdar", "tiny-8b-like")
    batching = Batching(3, seed=0, eos_id=network.special_tokens.eos_id)
    (batch,) = batches_of(SFT(64, block_length=4).planner(samples_of(9, 12, 20, prompt=2), batching), 1)
    objective = Objective(network, mask_id=network.special_tokens.mask_id, seed=0, noise=network.shape.training)

    def gradients():
        objective(batch).loss.backward()
        found = torch.cat([weight.grad.flatten() for weight in network.parameters()])
        network.zero_grad()
        return found

    expected = gradients()
    if is_checkpointed:
        network.train().recompute_blocks()
    try:
        assert torch.equal(gradients(), expected)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = gradients()
    finally:
        for block in network.eval().blocks:
            block.is_recomputed = False
    assert (rounded - expected).norm() < 0.05 * expected.norm()
