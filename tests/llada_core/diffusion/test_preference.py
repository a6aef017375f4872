"""The estimator of preferences against an enumeration of all masks, and its variance against what the theory says."""

import copy
from dataclasses import replace
from itertools import product
from math import comb, factorial

import pytest
import torch

from llada_core.diffusion.likelihood import AnswerScorer
from llada_core.diffusion.preference import Answers, Draws, answer_bounds, mask_answers, preference_losses
from tests.llada_core.model.architectures.test_family import network_of

PROMPT, ANSWER = [7, 11, 13], [20, 31, 42, 53]
L, BUDGET, TRIALS = len(ANSWER), 4, 20_000
MASKS = [mask for mask in product((0, 1), repeat=L) if any(mask)]
COUNTS = torch.tensor([sum(mask) for mask in MASKS])
# The number of masked tokens is uniform, and so is the mask among those of its number.
PROBABILITIES = torch.tensor([1 / (L * comb(L, sum(mask))) for mask in MASKS], dtype=torch.float64)
ONE_ANSWER = Answers(torch.tensor([PROMPT + ANSWER]), torch.tensor([len(PROMPT)]), (len(PROMPT) + L,))


@pytest.fixture(scope="module")
def other_network(tiny_network):
    """A reference that is like the policy, as references are."""
    torch.manual_seed(1)
    other = copy.deepcopy(tiny_network)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    return other


@torch.no_grad()
def log_probs(network) -> torch.Tensor:
    """Σ over masked tokens of log p, for every mask."""
    mask_id, sums = network.special_tokens.mask_id, []
    for mask in MASKS:
        answer = [mask_id if is_masked else token for is_masked, token in zip(mask, ANSWER, strict=True)]
        logits_LV = network(torch.tensor([PROMPT + answer])).logits[0, len(PROMPT) :].double()
        found_L = logits_LV.log_softmax(dim=-1)[torch.arange(L), torch.tensor(ANSWER)]
        sums.append((found_L * torch.tensor(mask)).sum())
    return torch.stack(sums)


def estimates_of_one_draw(network) -> torch.Tensor:
    return log_probs(network) * L / COUNTS


def mean(values):
    return float((PROBABILITIES * values).sum())


def variance(values):
    return mean(values**2) - mean(values) ** 2


def variance_between_levels(values):
    of_counts = torch.stack([values[count == COUNTS].mean() for count in range(1, L + 1)])
    return float((of_counts**2).mean() - of_counts.mean() ** 2)


def sampled(values, *, stratified=False, side=0):
    """The estimates of many samples, [trials], read from the values of all masks."""
    samples = torch.arange(TRIALS)
    answers = Answers(
        ONE_ANSWER.tokens_BL.expand(TRIALS, -1), ONE_ANSWER.starts_B.expand(TRIALS), ONE_ANSWER.lengths * TRIALS
    )
    draws = Draws.of(
        3, samples, samples * 0, samples * 0 + side, num_draws=BUDGET, length=len(PROMPT) + L, stratified=stratified
    )
    corrupted = mask_answers(answers, draws, mask_id=1)
    assert not corrupted.masked_BL[:, : len(PROMPT)].any()
    masked_BL = corrupted.masked_BL[:, len(PROMPT) :]
    assert torch.equal(masked_BL.sum(dim=1) / L, corrupted.p_mask_B)
    places = {mask: place for place, mask in enumerate(MASKS)}
    found = torch.tensor([places[tuple(row)] for row in masked_BL.int().tolist()])
    return values[found].view(TRIALS, BUDGET).mean(dim=1)


def test_the_mean_over_all_masks_is_the_integral_of_the_bound_over_the_noise_level(tiny_network):
    # ∫ t^(k - 1) (1 - t)^(L - k) dt, the weight of a mask of k tokens, by Euler's beta function.
    weights = torch.tensor([factorial(k - 1) * factorial(L - k) / factorial(L) for k in COUNTS.tolist()])
    integral = float((weights.double() * log_probs(tiny_network)).sum())
    assert mean(estimates_of_one_draw(tiny_network)) == pytest.approx(integral, rel=1e-6)


@pytest.mark.parametrize("stratified", [False, True])
def test_the_estimator_has_the_mean_of_the_enumeration(tiny_network, stratified):
    values = estimates_of_one_draw(tiny_network)
    error = (variance(values) / BUDGET / TRIALS) ** 0.5
    assert float(sampled(values, stratified=stratified).mean()) == pytest.approx(mean(values), abs=4 * error)


def test_a_level_for_every_mask_has_the_variance_that_the_theory_says_and_the_naive_one_has_more(tiny_network):
    values = estimates_of_one_draw(tiny_network)
    between, within = variance_between_levels(values), variance(values) - variance_between_levels(values)
    # One level with several masks: only what the masks add is averaged away.
    naive, optimal = between + within / BUDGET, (between + within) / BUDGET
    assert optimal < 0.9 * naive
    assert float(sampled(values).var()) == pytest.approx(optimal, rel=0.06)
    # As many levels as the answer has tokens: each number is masked once, so levels add nothing.
    assert BUDGET == L
    assert float(sampled(values, stratified=True).var()) == pytest.approx(within / BUDGET, rel=0.06)


def test_shared_masks_let_the_errors_of_policy_and_reference_cancel(tiny_network, other_network):
    policy, reference = estimates_of_one_draw(tiny_network), estimates_of_one_draw(other_network)
    shared, independent = variance(policy - reference) / BUDGET, (variance(policy) + variance(reference)) / BUDGET
    assert shared < 0.5 * independent
    assert float((sampled(policy) - sampled(reference)).var()) == pytest.approx(shared, rel=0.06)
    assert float((sampled(policy) - sampled(reference, side=1)).var()) == pytest.approx(independent, rel=0.06)


def test_a_bound_is_the_mean_of_its_draws_whatever_lies_beside_it(tiny_network):
    answers = Answers(
        torch.tensor([[*PROMPT, *ANSWER, 5], [8, 9, 10, 11, 12, 14, 15, 16]]), torch.tensor([3, 2]), (7, 8)
    )
    samples = torch.tensor([4, 9])
    draws = Draws.of(3, samples, samples * 0, samples * 0, num_draws=BUDGET, length=8)
    mask_id = tiny_network.special_tokens.mask_id
    corrupted = mask_answers(answers, draws, mask_id=mask_id)
    values = dict(zip(MASKS, estimates_of_one_draw(tiny_network).tolist(), strict=True))
    masks = corrupted.masked_BL[:BUDGET, 3:7].int().tolist()
    with torch.no_grad():
        bounds_B = answer_bounds(tiny_network, answers, corrupted)
        alone = answer_bounds(
            tiny_network,
            ONE_ANSWER,
            type(corrupted)(
                corrupted.tokens_BL[:BUDGET, :7], corrupted.masked_BL[:BUDGET, :7], corrupted.p_mask_B[:BUDGET]
            ),
        )
    assert float(bounds_B[0]) == pytest.approx(sum(values[tuple(mask)] for mask in masks) / BUDGET, rel=1e-5)
    torch.testing.assert_close(bounds_B[:1], alone)


def test_draws_depend_on_their_coordinates_only():
    samples = torch.tensor([3, 5])
    both = Draws.of(0, samples, torch.tensor([0, 2]), torch.tensor([0, 1]), num_draws=3, length=6)
    alone = Draws.of(0, samples[1:], torch.tensor([2]), torch.tensor([1]), num_draws=5, length=9)
    assert torch.equal(both.levels_BN[1], alone.levels_BN[0, :3])
    assert torch.equal(both.order_BNL[1], alone.order_BNL[0, :3, :6])
    spread = Draws.of(0, samples, samples, samples, num_draws=8, length=2, stratified=True)
    assert (spread.levels_BN * 8).long().tolist() == [list(range(8))] * 2


def test_the_losses_are_those_of_dpo_and_ipo():
    margins_B = torch.tensor([0.0, 2.5, -4.0], dtype=torch.float64)
    dpo = preference_losses(margins_B, beta=0.2, kind="dpo")
    torch.testing.assert_close(dpo, (1 + (-0.2 * margins_B).exp()).log())
    assert preference_losses(margins_B, beta=0.2, kind="ipo").tolist() == [6.25, 0.0, 42.25]


@pytest.mark.parametrize("family", [("sdar", "tiny-8b-like"), ("llada2_moe", "tiny-mini-like")], ids=str)
def test_the_bounds_of_a_block_causal_model_are_those_of_its_likelihood(family, monkeypatch):
    network = network_of(*family)
    monkeypatch.setattr(network, "shape", replace(network.shape, block_length=4))
    rows = [[7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17], [9, 10, 11, 12, 13, 14, 15, 0, 0, 0, 0]]
    answers = Answers(torch.tensor(rows), torch.tensor([3, 5]), (11, 7))
    samples = torch.tensor([4, 9])
    draws = Draws.of(3, samples, samples * 0, samples * 0, num_draws=BUDGET, length=11)
    corrupted = mask_answers(answers, draws, mask_id=network.special_tokens.mask_id, block_length=4)
    with torch.no_grad():
        bounds = answer_bounds(network, answers, corrupted).tolist()
    for row, (start, length) in enumerate(((3, 11), (5, 7))):
        scorer = AnswerScorer(
            network, rows[row][:start], rows[row][start:length], mask_id=network.special_tokens.mask_id
        )
        masks_NA = corrupted.masked_BL.view(2, BUDGET, -1)[row, :, start:length]
        assert bounds[row] == pytest.approx(float(scorer.estimates(masks_NA).nats_N.mean()), rel=1e-4)


def test_every_block_of_an_answer_is_masked_at_a_uniform_level_of_its_own():
    # Blocks of 4 after a prompt of 3: parts of 1, 4 and 2 tokens.
    answers = Answers(torch.full((TRIALS, 10), 5), torch.full((TRIALS,), 3), (10,) * TRIALS)
    samples = torch.arange(TRIALS)
    draws = Draws.of(3, samples, samples * 0, samples * 0, num_draws=1, length=10)
    corrupted = mask_answers(answers, draws, mask_id=1, block_length=4)
    assert not corrupted.masked_BL[:, :3].any()
    counts = []
    for part_BL, shares_BL in zip(
        corrupted.masked_BL[:, 3:].split((1, 4, 2), dim=1), corrupted.shares_BL[:, 3:].split((1, 4, 2), dim=1),
        strict=True,
    ):  # fmt: skip
        counts.append(part_BL.sum(dim=1))
        size = part_BL.shape[1]
        chances = torch.bincount(counts[-1], minlength=size + 1)[1:] / TRIALS
        torch.testing.assert_close(chances, torch.full((size,), 1 / size), atol=0.02, rtol=0)
        torch.testing.assert_close(part_BL.double().mean(dim=0), torch.full((size,), (size + 1) / 2 / size).double(),
                                   atol=0.02, rtol=0)  # fmt: skip
        assert torch.equal(shares_BL, (counts[-1] / size).double().unsqueeze(1).expand_as(shares_BL))
    assert not torch.equal(counts[1] / 4, counts[2] / 2)


def test_one_block_over_everything_is_masked_as_an_answer_of_one_part():
    samples = torch.arange(3)
    answers = Answers(torch.full((3, 10), 5), torch.tensor([3, 2, 5]), (10, 8, 9))
    draws = Draws.of(3, samples, samples * 0, samples * 0, num_draws=BUDGET, length=10)
    whole, block = (mask_answers(answers, draws, mask_id=1, block_length=length) for length in (None, 10))
    assert torch.equal(block.masked_BL, whole.masked_BL) and torch.equal(block.tokens_BL, whole.tokens_BL)
    assert torch.equal(block.p_mask_B[:, None] * block.shares_BL, whole.p_mask_B[:, None].expand(-1, 10))
