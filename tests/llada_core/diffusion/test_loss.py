import pytest
import torch

from llada_core.diffusion import loss
from llada_core.diffusion.loss import row_losses, sequence_normalizer, token_normalizer
from llada_core.diffusion.noise import Corrupted, corrupt
from tests.conftest import GOLDEN_CASES


def denoising_loss(model, tokens_BL, corrupted, normalizer_B):
    return (row_losses(model, tokens_BL, corrupted) / normalizer_B).sum()


def recorded_batch(case):
    tokens_BL = torch.tensor(case["input_ids"])
    corrupted = Corrupted(
        torch.tensor(case["noisy_ids"]), torch.tensor(case["masked_positions"]).bool(), torch.tensor(case["p_mask"])
    )
    if case["kind"] == "pretrain":
        return tokens_BL, corrupted, token_normalizer(torch.full((len(tokens_BL),), tokens_BL.shape[1]))
    return tokens_BL, corrupted, sequence_normalizer(tokens_BL.shape[1] - torch.tensor(case["prompt_lengths"]))


@pytest.fixture(params=["at once", "in parts"])
def logits(request, monkeypatch):
    """Whether all masked positions go through the head at once, or few at a time."""
    if request.param == "in parts":
        monkeypatch.setattr(loss, "_LOGITS_BYTES", 1)
        monkeypatch.setattr(loss, "_ROWS_MULTIPLE", 4)


@pytest.mark.usefixtures("logits")
@pytest.mark.parametrize("case", GOLDEN_CASES["loss"], ids=lambda case: case["id"])
def test_losses_and_gradients_equal_the_published_formulas(golden_networks, case):
    model = golden_networks[case["model"]]
    model.requires_grad_(True)
    try:
        found = denoising_loss(model, *recorded_batch(case))
        found.backward()
        norms = {name: parameter.grad.norm().item() for name, parameter in model.named_parameters()}
    finally:
        model.requires_grad_(False)
        model.zero_grad()
    assert found.item() == pytest.approx(case["loss"], rel=1e-5)
    assert norms == {name: pytest.approx(norm, rel=1e-3, abs=1e-6) for name, norm in case["grad_l2_norm"].items()}
    total = torch.tensor(list(norms.values())).norm().item()
    assert total == pytest.approx(case["grad_l2_norm_total"], rel=1e-4)


@pytest.mark.parametrize("case", GOLDEN_CASES["loss"], ids=lambda case: case["id"])
def test_corruption_equals_the_recorded_one_where_the_draws_say_so(golden_networks, case):
    model = golden_networks[case["model"]]
    tokens_BL, recorded, _ = recorded_batch(case)
    maskable_BL = None
    if case["kind"] == "sft":
        positions_L = torch.arange(tokens_BL.shape[1])
        maskable_BL = positions_L >= torch.tensor(case["prompt_lengths"]).unsqueeze(1)
    # Draws just below and just above each row's probability, as the recorded Bernoulli mask has it.
    t_B = torch.tensor(case["t"])
    p_B1 = ((1 - 1e-3) * t_B + 1e-3).unsqueeze(1)
    draws_BL = torch.where(torch.tensor(case["bernoulli_mask"]).bool(), p_B1 - 1e-6, p_B1)
    found = corrupt(tokens_BL, t_B, draws_BL, mask_id=model.special_tokens.mask_id, maskable_BL=maskable_BL)
    assert found.tokens_BL.tolist() == recorded.tokens_BL.tolist()
    assert found.masked_BL.tolist() == recorded.masked_BL.tolist()
    torch.testing.assert_close(found.p_mask_B, recorded.p_mask_B)


def test_parts_of_a_batch_add_up_under_the_whole_batchs_normalizer(tiny_network):
    case = GOLDEN_CASES["loss"][0]
    tokens_BL, corrupted, normalizer_B = recorded_batch(case)
    whole = denoising_loss(tiny_network, tokens_BL, corrupted, normalizer_B)
    parts = [
        denoising_loss(
            tiny_network,
            tokens_BL[rows],
            Corrupted(corrupted.tokens_BL[rows], corrupted.masked_BL[rows], corrupted.p_mask_B[rows]),
            normalizer_B[rows],
        )
        for rows in (slice(0, 1), slice(1, None))
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_parts_of_the_head_never_hold_all_logits(tiny_network, monkeypatch):
    monkeypatch.setattr(loss, "_LOGITS_BYTES", 1)
    sizes = []
    head = type(tiny_network).head
    monkeypatch.setattr(type(tiny_network), "head", lambda self, rows: sizes.append(len(rows)) or head(self, rows))
    hidden_RE = torch.randn(300, tiny_network.config.d_model, requires_grad=True)
    loss.head_losses(tiny_network, hidden_RE, torch.zeros(300, dtype=torch.long), loss.cross_entropy).sum().backward()
    # Each part once in forward and once more in backward.
    assert sizes[:5] == [64, 64, 64, 64, 44] and sorted(sizes) == sorted(2 * sizes[:5])
