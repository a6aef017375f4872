"""The likelihood of block-causal models: by enumeration, against the blocks computed by the loss, and by invariants."""

import weakref
from dataclasses import replace
from itertools import product
from math import comb, prod

import pytest
import torch

from llada_core.checkpoint.load import load_model
from llada_core.diffusion import likelihood
from llada_core.diffusion.likelihood import AnswerScorer, log_likelihood
from llada_core.diffusion.loss import masked_cross_entropy
from llada_core.diffusion.noise import Corrupted
from llada_core.model import clean_context
from llada_core.model.kv_cache import KVCache
from tests.llada_core.model.architectures.test_family import FAMILY, network_of

MODELS = [("sdar", "tiny-8b-like"), ("llada2_moe", "tiny-mini-like")]
PROMPT, ANSWER = [7, 8, 9, 10, 11], [12, 13, 14, 15, 16, 17, 18]


@pytest.fixture(params=MODELS, ids=str)
def network(request, monkeypatch):
    return with_blocks(network_of(*request.param), 4, monkeypatch)


def folder_of(family, model):
    return FAMILY / family / "models" / model


def with_blocks(model, block_length, monkeypatch):
    monkeypatch.setattr(model, "shape", replace(model.shape, block_length=block_length))
    return model


def scorer_of(model, prompt=PROMPT, answer=ANSWER, **settings):
    return AnswerScorer(model, prompt, answer, mask_id=model.special_tokens.mask_id, **settings)


@torch.no_grad()
def by_the_loss(network, prompt, answer, masks_NA):
    """log p of the masked tokens of each draw, by the network that sees a clean copy of every sequence."""
    tokens_NL = torch.tensor([*prompt, *answer]).expand(len(masks_NA), -1)
    masked_NL = torch.nn.functional.pad(masks_NA, (len(prompt), 0))
    noisy_NL = torch.where(masked_NL, network.special_tokens.mask_id, tokens_NL)
    corrupted = Corrupted(noisy_NL, masked_NL, torch.ones(len(masks_NA)))
    log_probs_R = -masked_cross_entropy(network, tokens_NL, corrupted)
    return torch.zeros(masks_NA.shape).masked_scatter(masks_NA, log_probs_R)


@torch.no_grad()
def exact_bound(network, prompt, answer, block_length):
    """Σ over blocks of the mean over the number of masks, and over all sets of so many, of L / masked · Σ log p."""
    total = 0.0
    for start in range(len(prompt) // block_length * block_length, len(prompt) + len(answer), block_length):
        tokens = [*prompt, *answer][: start + block_length]
        first = max(start, len(prompt))
        places = range(first, len(tokens))
        by_count = {count: [] for count in range(1, len(places) + 1)}
        for chosen in product([False, True], repeat=len(places)):
            if any(chosen):
                masked = [place for place, is_masked in zip(places, chosen, strict=True) if is_masked]
                noisy_BL = torch.tensor([tokens])
                noisy_BL[0, masked] = network.special_tokens.mask_id
                logits_LV = network(noisy_BL, block_length=block_length).logits[0]
                log_probs = logits_LV.log_softmax(dim=-1)[masked, [tokens[place] for place in masked]]
                by_count[len(masked)].append(float(log_probs.sum()) * len(places) / len(masked))
        total += sum(sum(values) / len(values) for values in by_count.values()) / len(places)
    return total


@pytest.mark.parametrize("cfg_scale", [0.0, 1.5])
def test_the_caches_take_as_much_memory_as_is_said(network, monkeypatch, cfg_scale):
    sizes = []

    class CountedCache(KVCache):
        def __init__(self, *args, **options):
            # Those of an earlier pass are gone.
            assert all(reference() is None for reference, _ in sizes)
            super().__init__(*args, **options)
            sizes.append((weakref.ref(self), self._layers.nbytes))

    monkeypatch.setattr(likelihood, "KVCache", CountedCache)
    scorer = scorer_of(network, cfg_scale=cfg_scale)
    scorer.estimates(scorer.masks(8, seed=0))
    assert {size for _, size in sizes} == {scorer.cache_bytes} != {0}
    # A model that attends to everything has none.
    assert scorer_of(with_blocks(network, None, monkeypatch)).cache_bytes == 0


@pytest.mark.parametrize("prompt", [[7, 8], [7, 8, 9]], ids=len)
def test_the_estimate_agrees_with_the_enumeration_of_every_mask_of_every_block(network, prompt, monkeypatch):
    with_blocks(network, 2, monkeypatch)
    answer = ANSWER[:4]
    exact = exact_bound(network, prompt, answer, 2)
    assert scorer_of(network, prompt, answer).part_lengths == ((2, 2) if len(prompt) == 2 else (1, 2, 1))
    estimate = log_likelihood(network, prompt, answer, mask_id=network.special_tokens.mask_id, mc_num=600, seed=1)
    assert estimate.value == pytest.approx(exact, abs=4 * estimate.stderr)
    # The mean over all draws that there are: a mask of some size in every block.
    scorer = scorer_of(network, prompt, answer)
    masks_NA = torch.tensor(list(product([False, True], repeat=len(answer))))
    parts = masks_NA.split(scorer.part_lengths, dim=1)
    masks_NA = masks_NA[torch.stack([part_NL.any(dim=1) for part_NL in parts]).all(dim=0)]
    chances_N = torch.tensor([
        prod(1 / (len(part) * comb(len(part), int(part.sum()))) for part in mask_A.split(scorer.part_lengths))
        for mask_A in masks_NA
    ])  # fmt: skip
    assert chances_N.sum() == pytest.approx(1)
    assert float((scorer.estimates(masks_NA).nats_N * chances_N).sum()) == pytest.approx(exact, rel=1e-5)


def test_a_token_for_each_block_is_exact_with_one_draw(network, monkeypatch):
    with_blocks(network, 1, monkeypatch)
    estimate = log_likelihood(network, PROMPT, ANSWER, mask_id=network.special_tokens.mask_id, mc_num=1)
    assert estimate.value == pytest.approx(exact_bound(network, PROMPT, ANSWER, 1), rel=1e-5)


@pytest.mark.parametrize("tile", [256, 4])
@pytest.mark.parametrize("backend", ["network", "cpu"])
def test_blocks_after_a_shared_context_score_as_in_the_loss(network, backend, tile, request, monkeypatch):
    monkeypatch.setattr(clean_context, "_TILE", tile)
    model = network
    if backend == "cpu":
        model = load_model(folder_of(*request.node.callspec.params["network"]), device="cpu")
        with_blocks(model, 4, monkeypatch)
    answer = [*range(12, 43)]
    for prompt in ([], PROMPT, PROMPT[:4]):
        scorer = scorer_of(model, prompt, answer)
        masks_NA = scorer.masks(5, seed=3)
        sums_NP = torch.stack([
            part.sum(dim=1) for part in by_the_loss(network, prompt, answer, masks_NA).split(scorer.part_lengths, dim=1)
        ], dim=1)  # fmt: skip
        estimates = scorer.estimates(masks_NA)
        torch.testing.assert_close((estimates.nats_NP * estimates.shares_NP).float(), sums_NP, atol=1e-4, rtol=1e-4)


def test_one_block_over_everything_is_the_bound_of_full_attention(network, monkeypatch):
    by_block, at_once = (scorer_of(with_blocks(network, length, monkeypatch)) for length in (len(PROMPT + ANSWER), 64))
    masks_NA = by_block.masks(6, seed=2)
    expected = by_block.estimates(masks_NA).nats_NP
    assert expected.shape == (6, 1)
    assert torch.equal(at_once.masks(6, seed=2), masks_NA)
    torch.testing.assert_close(at_once.estimates(masks_NA).nats_NP, expected)
    monkeypatch.setattr(network, "shape", replace(network.shape, block_length=None))
    torch.testing.assert_close(scorer_of(network).estimates(masks_NA).nats_NP, expected, atol=1e-4, rtol=1e-5)


def test_a_draw_scores_the_same_alone_and_in_any_batch(network):
    scorer = scorer_of(network)
    masks_NA = scorer.masks(9, seed=4)
    together = scorer.estimates(masks_NA).nats_NP
    alone = torch.cat([scorer.estimates(mask_1A).nats_NP for mask_1A in masks_NA.split(1)])
    torch.testing.assert_close(alone, together, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(scorer.estimates(masks_NA, max_tokens=24).nats_NP, together, atol=1e-4, rtol=1e-5)
    in_parts = torch.cat(list(scorer.estimate_in_parts(9, seed=4, max_tokens=24)))
    torch.testing.assert_close(in_parts, together.sum(dim=1), atol=1e-4, rtol=1e-5)


def test_a_block_depends_on_no_token_after_it_nor_on_a_suffix(network):
    whole, cut = scorer_of(network), scorer_of(network, answer=ANSWER[:-1])
    masks_NA = whole.masks(3, seed=0)
    expected = whole.estimates(masks_NA).nats_NP
    assert whole.part_lengths == (3, 4)
    torch.testing.assert_close(cut.estimates(torch.ones(1, 6, dtype=torch.bool)).nats_NP[:, 0],
        whole.estimates(torch.ones(1, 7, dtype=torch.bool)).nats_NP[:, 0], atol=1e-5, rtol=1e-5)  # fmt: skip
    assert torch.equal(scorer_of(network, suffix=[20, 21]).estimates(masks_NA).nats_NP, expected)


def test_guidance_masks_the_prompt_in_the_context_too(network):
    guided = scorer_of(network, cfg_scale=0.5)
    masks_NA = guided.masks(4, seed=0)
    nats_NP = guided.estimates(masks_NA).nats_NP
    assert not torch.allclose(nats_NP, scorer_of(network).estimates(masks_NA).nats_NP)
    # Without a prompt there is nothing that guidance masks.
    masks_NA = scorer_of(network, []).masks(4, seed=0)
    plain, same = (scorer_of(network, [], cfg_scale=scale).estimates(masks_NA).nats_N for scale in (0.0, 0.5))
    torch.testing.assert_close(plain, same, atol=1e-4, rtol=1e-5)


def test_a_draw_costs_the_blocks_that_hold_the_answer(network):
    scorer = scorer_of(network)
    # Blocks of 4: the clean context of 8 tokens once, and for each draw the answer and what shares its first block.
    assert scorer.num_tokens(10) == 8 + 10 * (1 + 7)
    assert scorer_of(network, cfg_scale=1.0).num_tokens(10) == 2 * scorer.num_tokens(10)
