from itertools import product

import pytest
import torch
import torch.nn.functional as F

from llada_core.diffusion.likelihood import AnswerScorer, answer_masks, log_likelihood
from llada_core.errors import InvalidParameterError
from tests.conftest import GOLDEN_CASES


@pytest.mark.parametrize("case", GOLDEN_CASES["log_likelihood"], ids=lambda case: case["id"])
def test_the_recorded_masks_give_the_recorded_likelihood(golden_models, case):
    model = golden_models[case["model"]]
    masks_NL = torch.tensor([mask for part in case["iterations"] for mask in part["answer_mask"]]).bool()
    scorer = AnswerScorer(
        model,
        case["prompt_ids"],
        case["answer_ids"],
        mask_id=model.special_tokens.mask_id,
        cfg_scale=case["cfg_scale"],
    )
    estimates_N = scorer.estimates(masks_NL).nats_N
    assert estimates_N.mean().item() == pytest.approx(case["log_likelihood"], rel=1e-5)


def exact_bound(model, prompt, answer, cfg_scale=0.0):
    """E over the number of masks and their places, by enumerating every subset of the answer."""
    length = len(answer)
    masks_NL = torch.tensor([mask for mask in product([0, 1], repeat=length) if any(mask)]).bool()
    scorer = AnswerScorer(model, prompt, answer, mask_id=model.special_tokens.mask_id, cfg_scale=cfg_scale)
    estimates_N = scorer.estimates(masks_NL).nats_N
    counts_N = masks_NL.sum(dim=1)
    subsets_of_size = torch.bincount(counts_N, minlength=length + 1).double()
    return float((estimates_N / subsets_of_size[counts_N] / length).sum())


@pytest.mark.parametrize("cfg_scale", [0.0, 1.5])
@pytest.mark.parametrize("answer", [[7], [9, 200], [5, 90, 17, 33]])
def test_the_estimate_agrees_with_exact_enumeration(tiny, answer, cfg_scale):
    found = log_likelihood(tiny, [3, 4, 5], answer, mask_id=319, mc_num=1024, cfg_scale=cfg_scale, seed=1)
    exact = exact_bound(tiny, [3, 4, 5], answer, cfg_scale)
    assert found.value == pytest.approx(exact, abs=max(3 * found.stderr, 1e-3))


def test_a_single_token_needs_a_single_draw(tiny, tiny_network):
    found = log_likelihood(tiny, [3, 4], [7], mask_id=319, mc_num=1)
    with torch.no_grad():
        logits = tiny_network(torch.tensor([[3, 4, 319]])).logits[0, 2]
    assert found.value == pytest.approx(float(F.log_softmax(logits, dim=0)[7]), rel=1e-5)
    assert found.stderr is None


def test_mask_counts_are_spread_evenly():
    counts = answer_masks(8, 16, seed=3).sum(dim=1)
    assert torch.bincount(counts, minlength=9).tolist() == [0] + [2] * 8


@pytest.mark.parametrize(("length", "mc_num"), [(8, 16), (4, 6), (5, 3), (3, 128)])
def test_every_mask_count_is_equally_likely(length, mc_num):
    counts = torch.cat([answer_masks(length, mc_num, seed=seed).sum(dim=1) for seed in range(length * 200)])
    shares = torch.bincount(counts, minlength=length + 1)[1:] / len(counts)
    torch.testing.assert_close(shares, torch.full((length,), 1 / length), atol=0.03, rtol=0)


def test_the_seed_decides_the_masks():
    assert torch.equal(answer_masks(8, 16, seed=3), answer_masks(8, 16, seed=3))
    assert not torch.equal(answer_masks(8, 16, seed=3), answer_masks(8, 16, seed=4))


def test_an_empty_answer_or_no_draw_is_refused(tiny):
    with pytest.raises(InvalidParameterError, match="answer has 0 tokens"):
        log_likelihood(tiny, [1], [], mask_id=319)
    with pytest.raises(InvalidParameterError, match="mc_num is 0"):
        log_likelihood(tiny, [1], [2], mask_id=319, mc_num=0)


def test_masks_of_some_draws_are_rows_of_the_masks_of_all():
    whole = answer_masks(9, 50, seed=3)
    assert torch.equal(answer_masks(9, 50, seed=3, draws=range(17, 23)), whole[17:23])
