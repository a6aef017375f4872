"""The estimators of a token's log-probability against an enumeration of all masks, and GRPO's loss."""

import copy
from dataclasses import replace
from itertools import product
from math import exp, log

import pytest
import torch

from llada_core.diffusion.likelihood import AnswerScorer
from llada_core.diffusion.policy import (
    NUM_VIEWS,
    Responses,
    group_advantages,
    policy_losses,
    token_log_probs,
    views_of,
)
from llada_core.diffusion.preference import Draws
from tests.llada_core.model.architectures.test_family import network_of

PROMPT, TEXT, AFTER = [7, 11, 13], [20, 31, 42, 53], [2, 2]
CANVAS = [*TEXT, *AFTER]
C, TRIALS = len(CANVAS), 20_000
START, STOP, LENGTH = len(PROMPT), len(PROMPT) + len(TEXT), len(PROMPT) + C
MASKS = torch.tensor(list(product((0, 1), repeat=C)), dtype=torch.bool)
SIZES = MASKS.sum(dim=1)


def responses_of(count=1):
    starts_B = torch.full((count,), START)
    return Responses(torch.tensor([PROMPT + CANVAS] * count), starts_B, starts_B + len(TEXT), (LENGTH,) * count)


def draws_of(count=1, length=LENGTH, seed=3):
    samples = torch.arange(count)
    return Draws.of(seed, samples, samples * 0, samples * 0, num_draws=1, length=length)


@pytest.fixture(scope="module")
def table(tiny_network):
    """log p of every token of the text under every mask of the canvas, [masks, tokens]."""
    tokens = torch.where(MASKS, tiny_network.special_tokens.mask_id, torch.tensor(CANVAS))
    rows = torch.cat((torch.tensor(PROMPT).expand(len(MASKS), -1), tokens), dim=1)
    with torch.no_grad():
        logits = tiny_network(rows).logits[:, START:STOP].double()
    return logits.log_softmax(dim=-1).gather(2, torch.tensor(TEXT).expand(len(MASKS), -1).unsqueeze(2)).squeeze(2)


def shares_of_the_bound(table):
    """Each token's share of the bound: the mean over sizes, and of each size over the masks that hide the token."""
    shares = []
    for token in range(len(TEXT)):
        hidden = MASKS[:, token]
        shares.append(torch.stack([table[hidden & (size == SIZES), token].mean() for size in range(1, C + 1)]).mean())
    return torch.stack(shares)


def mean_of_coupled(table):
    """The mean of the coupled estimate over all masks: of each size 1 … C - 1 with the same probability."""
    mean = 0
    for size in range(1, C):
        chosen = MASKS[size == SIZES]
        mean = mean + coupled(table, chosen).mean(dim=0) / (C - 1)
    return mean


def coupled(table, masks):
    powers = 2 ** torch.arange(C - 1, -1, -1)
    under, beside = (table[(part.long() * powers).sum(dim=1)] for part in (masks, ~masks))
    return torch.where(masks[:, : len(TEXT)], under, beside)


def test_both_estimators_measure_every_token_of_the_text_once_and_nothing_else():
    responses = responses_of(50)
    for estimator, num_views in NUM_VIEWS.items():
        views = views_of(responses, draws_of(50), estimator=estimator, mask_id=99, prompt_masking=0.3)
        measured_BVL = views.masked_BL.view(50, num_views, LENGTH)
        assert torch.equal(measured_BVL.sum(dim=1), responses.is_text_BL.long())
        hidden_BVL = views.tokens_BL.view(50, num_views, LENGTH) == 99
        assert torch.equal(measured_BVL, hidden_BVL & responses.is_text_BL.unsqueeze(1))
        # What follows the text is hidden as often as the text is: the canvas has no end before the answer has one.
        assert torch.equal(hidden_BVL[..., START:].sum(dim=1), torch.ones(50, C, dtype=torch.long))
        assert (hidden_BVL[..., START:].any(dim=2)).all()
        # The prompt's masks are those of the response, in all of its views.
        assert torch.equal(hidden_BVL[:, 0, :START], hidden_BVL[:, -1, :START])
        assert 0.15 < hidden_BVL[..., :START].double().mean() < 0.45


def test_one_step_is_the_fully_masked_response(tiny_network, table):
    views = views_of(responses_of(), draws_of(), estimator="one_step", mask_id=tiny_network.special_tokens.mask_id)
    with torch.no_grad():
        found_BL = token_log_probs(tiny_network, responses_of(), views)
    torch.testing.assert_close(found_BL[0, START:STOP].double(), table[-1], atol=1e-5, rtol=1e-5)
    assert not found_BL[0, :START].any() and not found_BL[0, STOP:].any()


def test_the_coupled_estimator_has_the_mean_of_the_enumeration(tiny_network, table):
    responses = responses_of(TRIALS)
    views = views_of(responses, draws_of(TRIALS), estimator="coupled", mask_id=99)
    hidden = views.tokens_BL.view(TRIALS, 2, LENGTH)[:, 0, START:] == 99
    estimates = coupled(table, hidden)
    errors = estimates.std(dim=0) / TRIALS**0.5
    assert ((estimates.mean(dim=0) - mean_of_coupled(table)).abs() < 4 * errors).all()


def test_the_model_is_asked_what_the_enumeration_says(tiny_network, table):
    responses = responses_of(6)
    views = views_of(responses, draws_of(6), estimator="coupled", mask_id=tiny_network.special_tokens.mask_id)
    hidden = views.tokens_BL.view(6, 2, LENGTH)[:, 0, START:] == tiny_network.special_tokens.mask_id
    with torch.no_grad():
        found_BL = token_log_probs(tiny_network, responses, views)
    torch.testing.assert_close(found_BL[:, START:STOP].double(), coupled(table, hidden), atol=1e-5, rtol=1e-5)


def test_the_coupled_estimator_has_less_bias_than_one_step(table):
    bound = shares_of_the_bound(table)
    biases = {
        name: float((mean - bound).pow(2).mean().sqrt())
        for name, mean in (("one_step", table[-1]), ("coupled", mean_of_coupled(table)))
    }
    assert biases["coupled"] < 0.5 * biases["one_step"], biases


def test_a_response_is_measured_the_same_whatever_lies_beside_it(tiny_network):
    mask_id = tiny_network.special_tokens.mask_id
    longer = torch.tensor([[*PROMPT, *CANVAS, 2, 2], [8, 9, 10, 11, 12, 14, 15, 16, 17, 18, 19]])
    both = Responses(longer, torch.tensor([START, 2]), torch.tensor([STOP, 9]), (LENGTH, 11))
    draws = draws_of(2, length=11)
    with torch.no_grad():
        together = token_log_probs(
            tiny_network, both, views_of(both, draws, estimator="coupled", mask_id=mask_id, prompt_masking=0.4)
        )
        alone = token_log_probs(
            tiny_network,
            responses_of(),
            views_of(responses_of(), draws_of(), estimator="coupled", mask_id=mask_id, prompt_masking=0.4),
        )
    torch.testing.assert_close(together[0, :LENGTH], alone[0])


def test_a_canvas_of_one_position_can_be_measured():
    one = Responses(torch.tensor([[7, 20]]), torch.tensor([1]), torch.tensor([2]), (2,))
    views = views_of(one, draws_of(1, length=2), estimator="coupled", mask_id=99)
    assert views.masked_BL.tolist() == [[False, True], [False, False]]


def test_advantages_are_relative_to_the_group_and_equal_rewards_give_none():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 1.0], [0.1 + 0.2, 0.1 + 0.2, 0.1 + 0.2, 0.1 + 0.2], [3.0, 0.0, 0.0, 0.0]])
    assert group_advantages(rewards, scale=True)[:2].tolist() == [[1.0, -1.0, -1.0, 1.0], [0.0] * 4]
    assert group_advantages(rewards, scale=False)[2].tolist() == [2.25, -0.75, -0.75, -0.75]
    assert group_advantages(torch.tensor([[0.1 * 3] * 7]), scale=True).tolist() == [[0.0] * 7]


def test_the_loss_is_clipped_where_the_policy_has_moved_far_enough_and_only_there():
    is_text_BL = torch.tensor([[False, True, True], [False, True, False], [False, True, False]])
    log_probs = torch.tensor([[5.0, -1.0, -2.0], [5.0, -1.0, 7.0], [5.0, -1.0, 7.0]], requires_grad=True)
    old = log_probs.detach() - torch.tensor([[9.0, 0.0, log(2)], [9.0, log(2), 0.0], [9.0, -log(2), 0.0]])
    advantages_B = torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)
    found = policy_losses(log_probs, old, None, advantages_B, is_text_BL=is_text_BL, clip=0.2, beta=0.5)
    # Ratios 1 and 2 with advantage 1; 2 and 1/2 with -1: a worse answer may become less likely only so far.
    assert found.losses_B.tolist() == pytest.approx([-(1 + 1.2) / 2, 2.0, 0.8])
    assert found.clipped_B.tolist() == [0.5, 0.0, 1.0] and found.divergences_B.tolist() == [0.0] * 3
    found.losses_B.sum().backward()
    assert log_probs.grad.tolist() == [pytest.approx([0, -0.5, 0]), pytest.approx([0, 2, 0]), pytest.approx([0, 0, 0])]


def test_the_divergence_is_not_negative_and_zero_where_policy_and_reference_agree():
    is_text_BL = torch.tensor([[True, True]])
    log_probs = torch.tensor([[-1.0, -1.0]], requires_grad=True)
    reference = torch.tensor([[-1.0, -1.5]])
    found = policy_losses(
        log_probs, log_probs.detach(), reference, torch.zeros(1).double(), is_text_BL=is_text_BL, clip=0.2, beta=0.4
    )
    expected = (exp(-0.5) - 1 + 0.5) / 2
    assert found.divergences_B.tolist() == pytest.approx([expected])
    assert found.losses_B.tolist() == pytest.approx([0.4 * expected])


def test_before_any_update_the_gradient_is_that_of_the_plain_policy_gradient(tiny_network):
    policy = copy.deepcopy(tiny_network).requires_grad_(True)
    policy.special_tokens = tiny_network.special_tokens
    responses = responses_of()
    views = views_of(responses, draws_of(), estimator="coupled", mask_id=policy.special_tokens.mask_id)
    log_probs_BL = token_log_probs(policy, responses, views)
    text_BL, advantages_B = responses.is_text_BL, torch.tensor([1.7], dtype=torch.float64)
    losses = policy_losses(
        log_probs_BL, log_probs_BL.detach(), None, advantages_B, is_text_BL=text_BL, clip=0.2, beta=0.0
    )
    (gradient,) = torch.autograd.grad(losses.losses_B.sum(), [policy.blocks[0].q_proj.weight], retain_graph=True)
    (expected,) = torch.autograd.grad(-1.7 * log_probs_BL.sum() / len(TEXT), [policy.blocks[0].q_proj.weight])
    torch.testing.assert_close(gradient, expected, atol=1e-7, rtol=1e-5)


def test_of_a_block_causal_model_a_block_is_measured_after_the_clean_ones_before_it(monkeypatch):
    network = network_of("sdar", "tiny-8b-like")
    monkeypatch.setattr(network, "shape", replace(network.shape, block_length=4))
    prompt, answer, mask_id = [7, 8, 9, 10, 11], [12, 13, 14, 15, 16, 17, 18], network.special_tokens.mask_id
    responses = Responses(torch.tensor([[*prompt, *answer]]), torch.tensor([5]), torch.tensor([12]), (12,))
    draws = Draws.of(1, torch.tensor([0]), torch.tensor([0]), torch.tensor([0]), num_draws=1, length=12)
    whole, coupled = (
        views_of(responses, draws, estimator=estimator, mask_id=mask_id) for estimator in ("one_step", "coupled")
    )
    scorer = AnswerScorer(network, prompt, answer, mask_id=mask_id)
    with torch.no_grad():
        log_probs_L = token_log_probs(network, responses, whole)[0]
        coupled_L = token_log_probs(network, responses, coupled)[0]
        masked = views_of(responses, draws, estimator="one_step", mask_id=mask_id, prompt_masking=1.0)
        without_prompt_L = token_log_probs(network, responses, masked)[0]
    expected_P = scorer.estimates(torch.ones(1, 7, dtype=torch.bool)).nats_NP[0]
    found_P = torch.stack([part.sum() for part in log_probs_L[5:].split(scorer.part_lengths)])
    torch.testing.assert_close(found_P.double(), expected_P, atol=1e-4, rtol=1e-5)
    assert not torch.allclose(coupled_L[5:], log_probs_L[5:])
    expected_P = replace(scorer, prompt=[mask_id] * 5).estimates(torch.ones(1, 7, dtype=torch.bool)).nats_NP[0]
    found_P = torch.stack([part.sum() for part in without_prompt_L[5:].split(scorer.part_lengths)])
    torch.testing.assert_close(found_P.double(), expected_P, atol=1e-4, rtol=1e-5)
