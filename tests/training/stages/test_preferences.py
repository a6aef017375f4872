"""Pairs of answers, from their records to the gradient."""

import copy
from dataclasses import replace
from math import log

import numpy as np
import pytest
import torch

from llada_core.text.special_tokens import EOS_TOKEN, EOT_TOKEN
from llada_core.text.tokenizer import Message
from tests.training.fake_samples import EOS, samples_of
from training.data.batches import Batching
from training.data.dialogues import Preference, Turn
from training.distributed import World
from training.stages.measurement import Conditions
from training.stages.preference_objective import Sampling
from training.stages.preferences import Preferences

ASKED = Turn("user", "How far?")
BETA, DRAWS = 0.3, 3


def pair(chosen="3 km", rejected="3"):
    return Preference(*([ASKED, Turn("assistant", text, is_target=True)] for text in (chosen, rejected)))


def encode(tokenizer, *items, **settings):
    encoder = Preferences(**{"max_length": 200, **settings}).encoder(tokenizer, eos_id=tokenizer.token_to_id(EOS_TOKEN))
    return list(encoder.encode(items)), encoder


def stage(**settings):
    return Preferences(64, sampling=Sampling(DRAWS), beta=BETA, **settings)


def pairs(*lengths, prompt=2):
    """Pairs of rows of these lengths; every token of a pair is the same."""
    chosen, rejected = np.array(lengths).T
    samples = samples_of(*(chosen + rejected), prompt=prompt, suffix=rejected)
    read = samples.__getitem__
    samples.spans = None

    class Pairs(type(samples)):
        def __getitem__(self, index):
            return replace(read(index), spans=tuple(lengths[index]))

    return Pairs(samples.lengths, samples.prompt_lengths, samples.suffix_lengths)


def batch_of(samples, part=slice(None)):
    planner = stage().planner(samples, Batching(len(samples), seed=0, eos_id=EOS))
    return planner.collate(planner.plan(0), part)


def objective_of(networks, **settings):
    policy, reference = networks
    return stage(**settings).objective(policy, seed=0, reference=lambda: reference)


def test_a_pair_is_one_sample_of_two_rows_with_the_same_prompt(demo_tokenizer):
    (sample,), _ = encode(demo_tokenizer, pair())
    rejected = sample.ids[-sample.suffix_length :]
    chosen = sample.ids[: -sample.suffix_length]
    prompt = demo_tokenizer.encode_chat([Message("user", "How far?")])
    end, eos_id = demo_tokenizer.token_to_id(EOT_TOKEN), demo_tokenizer.token_to_id(EOS_TOKEN)
    assert sample.prompt_length == len(prompt)
    assert chosen == [*prompt, *demo_tokenizer.encode_plain("3 km"), end, eos_id]
    short = [*prompt, *demo_tokenizer.encode_plain("3"), end, eos_id]
    # Padded: the number of masks must not say which answer it is.
    assert len(short) < len(chosen) and rejected == short + [eos_id] * (len(chosen) - len(short))


def test_a_pair_of_which_one_answer_is_too_long_is_left_out_whole_or_cut(demo_tokenizer):
    whole = encode(demo_tokenizer, pair())[0][0]
    longest = len(whole.ids) - whole.suffix_length
    items = (pair(), pair("5", "5 km and more"), pair("7", "8"))
    samples, encoder = encode(demo_tokenizer, *items, max_length=longest)
    assert [sample.item for sample in samples] == [0, 2] and encoder.num_dropped == 1
    samples, encoder = encode(demo_tokenizer, *items, max_length=longest, overlong="truncate")
    assert [sample.item for sample in samples] == [0, 1, 2]
    assert (encoder.num_dropped, encoder.num_truncated) == (0, 1)
    assert samples[1].suffix_length == longest


def test_answers_that_are_the_same_once_cut_are_left_out(demo_tokenizer):
    prompt_length = encode(demo_tokenizer, pair())[0][0].prompt_length
    items = pair("12 km", "12 miles")
    samples, encoder = encode(demo_tokenizer, items, max_length=prompt_length + 1, overlong="truncate")
    assert (samples, encoder.num_dropped, encoder.num_truncated) == ([], 1, 0)


def test_only_answers_are_masked_and_only_within_their_own_row(tiny_network):
    batch = batch_of(pairs((5, 7), (9, 4), (6, 6)))
    answers, _, corrupted = Sampling(DRAWS).of(batch, mask_id=99, seed=0)
    assert sorted(answers.lengths[:3]) == [5, 6, 9] and sorted(answers.lengths[3:]) == [4, 6, 7]
    for row, length in enumerate(answers.lengths):
        assert answers.tokens_BL[row, :length].tolist() == [5 + int(batch.samples_B[row % 3])] * length
        masked_NL = corrupted.masked_BL.view(6, DRAWS, -1)[row]
        assert not masked_NL[:, :2].any() and not masked_NL[:, length:].any()
        assert (masked_NL.sum(dim=1) >= 1).all()


def test_the_first_step_starts_from_a_tie(networks):
    _, reference = networks
    loss, figures = objective_of((copy.deepcopy(reference), reference))(batch_of(pairs((5, 7), (9, 4))))
    assert loss.item() == pytest.approx(log(2), abs=1e-7)
    assert figures["reward_accuracy"].tolist() == [1.0, 2.0] and figures["reward_margin"].tolist() == [0.0, 2.0]


@pytest.mark.parametrize(("loss", "rpo_alpha"), [("dpo", 0.0), ("ipo", 0.0), ("dpo", 0.7)])
def test_the_gradient_is_that_of_computing_every_draw_by_itself(networks, loss, rpo_alpha):
    policy, reference = networks
    batch = batch_of(pairs((5, 7), (9, 4)))
    objective_of(networks, loss=loss, rpo_alpha=rpo_alpha)(batch).loss.backward()
    gradients = [weight.grad.clone() for weight in policy.parameters()]
    policy.zero_grad()
    answers, _, corrupted = Sampling(DRAWS).of(batch, mask_id=policy.special_tokens.mask_id, seed=0)
    bounds = [[], []]
    for row, length in enumerate(answers.lengths):
        tokens_L = answers.tokens_BL[row, :length]
        for place, network in enumerate((policy, reference)):
            estimates = []
            for draw in range(row * DRAWS, (row + 1) * DRAWS):
                masked_L = corrupted.masked_BL[draw, :length]
                logits_LV = network(corrupted.tokens_BL[draw, :length][None]).logits[0]
                log_probs_L = logits_LV.log_softmax(dim=-1)[torch.arange(length), tokens_L]
                estimates.append(log_probs_L[masked_L].sum() * (length - 2) / masked_L.sum())
            bounds[place].append(torch.stack(estimates).mean())
    gains_B = torch.stack(bounds[0]) - torch.stack(bounds[1]).detach()
    margins_B = gains_B[:2] - gains_B[2:]
    losses_B = -(BETA * margins_B).sigmoid().log() if loss == "dpo" else (margins_B - 1 / (2 * BETA)) ** 2
    chosen_nll_B = -torch.stack(bounds[0][:2]) / (torch.tensor(answers.lengths[:2]) - 2)
    (losses_B + rpo_alpha * chosen_nll_B).mean().backward()
    for weight, gradient in zip(policy.parameters(), gradients, strict=True):
        torch.testing.assert_close(gradient, weight.grad, atol=1e-5, rtol=1e-3)


def test_micro_batches_add_up_to_the_loss_of_the_step(networks):
    samples, objective = pairs((5, 7), (9, 4), (6, 6), (3, 8)), objective_of(networks)
    whole = objective(batch_of(samples))
    parts = [objective(batch_of(samples, slice(start, start + 1))) for start in range(4)]
    torch.testing.assert_close(sum(part.loss for part in parts), whole.loss, rtol=1e-5, atol=0)
    for name, figure in whole.figures.items():
        torch.testing.assert_close(sum(part.figures[name] for part in parts), figure, rtol=1e-5, atol=1e-6)


def test_validation_measures_the_same_pairs_with_the_same_draws_every_time(networks, demo_tokenizer):
    samples, objective = pairs((5, 7), (9, 4), (6, 6), (3, 8)), objective_of(networks)
    conditions = Conditions(3, 0, World(0, 1, torch.device("cpu")), lambda: False, demo_tokenizer)
    first, again = (stage().validate(objective, samples, conditions) for _ in range(2))
    assert first == again and first.figures["val_loss_standard_error"] > 0
    assert 0 <= first.figures["val_reward_accuracy"] <= 1
    assert stage().validate(objective, samples, replace(conditions, is_stopping=lambda: True)) is None
