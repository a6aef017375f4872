"""The loss of the real data path against the golden vectors, and against itself divided in different ways."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from llada_core.diffusion.loss import row_losses
from llada_core.diffusion.noise import Corrupted
from tests.conftest import GOLDEN_CASES
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
    loss, _ = Objective(model, mask_id=model.special_tokens.mask_id, seed=0)(batch)
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
            model.activation_checkpointing_enable({"use_reentrant": False})
        Objective(model, mask_id=tiny_network.special_tokens.mask_id, seed=3)(batch_of(case, tiny_network))[
            0
        ].backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.equal(first, second) for first, second in zip(*gradients, strict=True))
