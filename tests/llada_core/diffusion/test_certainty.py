"""Certainty forcing: the states that a sampler visits, and the loss at them against one worked out token by token."""

import copy
from dataclasses import replace

import pytest
import torch

from llada_core import load_model
from llada_core.diffusion import loss
from llada_core.diffusion.certainty import UNWRITTEN, Trajectories, certainty_losses
from llada_core.sampling.canvas import Canvas
from llada_core.sampling.params import GenerationParams
from llada_core.sampling.prepare import Vocabulary, prepare_response
from llada_core.sampling.sampler import Sampler
from tests.llada_core.model.architectures.test_family import FAMILY

MASK, EOS, NO = 99, 1, UNWRITTEN
# Two blocks of four after prompts of two and three tokens; the second text ends in its first block.
TOKENS = torch.tensor([[7, 8, 20, 21, 22, 23, 24, 25, EOS, EOS, 0], [7, 8, 9, 30, 31, EOS, EOS, EOS, EOS, EOS, EOS]])
STEPS = torch.tensor([[NO, NO, 0, 2, 2, 1, 3, 4, 3, NO, NO], [NO, NO, NO, 1, 0, 0, NO, NO, NO, NO, NO]])
ANSWERS = Trajectories(TOKENS, STEPS, torch.tensor([2, 3]), (10, 11))


def states_of(block_draw, t, trajectories=ANSWERS):
    draws_B, t_B = (torch.full((len(trajectories.lengths),), value, dtype=torch.float64) for value in (block_draw, t))
    return trajectories.states(draws_B, t_B, block_length=4, mask_id=MASK)


def shown(row):
    return ["." if token == MASK else int(token) for token in row]


def test_a_state_is_what_a_step_of_the_sampler_found():
    first, second = states_of(0.1, 0.0).tokens_BL
    assert shown(first) == [7, 8, ".", ".", ".", ".", ".", ".", ".", ".", 0]
    assert shown(second) == [7, 8, 9, ".", ".", ".", ".", ".", ".", ".", "."]
    # Of the three steps of its first block the last committed two tokens, of those of the other row one.
    states = states_of(0.1, 0.99)
    assert shown(states.tokens_BL[0]) == [7, 8, 20, ".", ".", 23, ".", ".", ".", ".", 0]
    assert shown(states.tokens_BL[1]) == [7, 8, 9, ".", 31, EOS, ".", ".", ".", ".", "."]
    assert states.masked_BL.nonzero().tolist() == [[0, 3], [0, 4], [1, 3]]
    assert states.p_mask_B.tolist() == pytest.approx([2 / 4, 1 / 3])


def test_only_blocks_in_which_a_token_was_written_are_active():
    states = states_of(0.9, 0.5)
    assert shown(states.tokens_BL[0]) == [7, 8, 20, 21, 22, 23, 24, ".", EOS, ".", 0]
    assert states.masked_BL.nonzero().tolist() == [[0, 7], [1, 3]]


def test_steps_are_chosen_evenly():
    masked = [int(states_of(0.0, (n + 0.5) / 30).masked_BL[0].sum()) for n in range(30)]
    assert {size: masked.count(size) for size in set(masked)} == {4: 10, 3: 10, 2: 10}


def test_the_states_of_a_recorded_answer_are_the_inputs_of_its_steps(demo):
    params = GenerationParams(gen_length=12, block_length=6, confidence_threshold=0.6)
    canvas = prepare_response([3, 40, 41], params, Vocabulary.of(demo))
    inputs = frames(canvas, Sampler(demo))
    steps = torch.from_numpy(canvas.commit_steps).clone()
    steps[torch.from_numpy(canvas.tokens == demo.special_tokens.mask_id)] = UNWRITTEN
    steps[:3] = UNWRITTEN
    tokens = torch.from_numpy(canvas.tokens)
    recorded = Trajectories(tokens[None], steps[None], torch.tensor([3]), (len(tokens),))
    seen = {
        tuple(
            recorded.states(
                torch.tensor([draw]), torch.tensor([t / 64]), block_length=6, mask_id=demo.special_tokens.mask_id
            ).tokens_BL[0].tolist()
        )
        for draw in (0.0, 0.99)
        for t in range(64)
    }  # fmt: skip
    assert seen == inputs and len(inputs) > 2


def test_the_states_of_a_block_causal_models_answer_are_the_inputs_of_its_steps_up_to_the_active_block():
    model = load_model(FAMILY / "sdar" / "models" / "tiny-8b-like")
    mask_id = model.special_tokens.mask_id
    params = GenerationParams(gen_length=9, block_length=6, steps_per_block=3, ignore_eos=True)
    canvas = prepare_response([3, 40, 41], params, Vocabulary.of(model))
    inputs = frames(canvas, Sampler(model))
    tokens, steps = torch.from_numpy(canvas.tokens), torch.from_numpy(canvas.commit_steps).clone()
    assert len(tokens) == 12
    steps[:3] = UNWRITTEN
    recorded = Trajectories(tokens[None], steps[None], torch.tensor([3]), (12,))
    for draw, stop in ((0.0, 6), (0.99, 12)):
        # A position sees no block after its own.
        found = {
            tuple(
                recorded.states(
                    torch.tensor([draw]), torch.tensor([t / 64]), block_length=6, mask_id=mask_id, counts_prompt=True
                ).tokens_BL[0, :stop].tolist()
            )
            for t in range(64)
        }  # fmt: skip
        expected = {ids[:stop] for ids in inputs if mask_id in ids[stop - 6 : stop] and mask_id not in ids[: stop - 6]}
        assert found == expected and len(expected) >= 2


def frames(canvas: Canvas, sampler: Sampler) -> set[tuple[int, ...]]:
    """The tokens that each step of a canvas's run found."""
    found = set()
    while canvas.finish_reason is None:
        found.add(tuple(canvas.tokens.tolist()))
        sampler.step([canvas])
    return found


@pytest.fixture
def network(tiny_network):
    network = copy.deepcopy(tiny_network).requires_grad_(True)
    network.special_tokens = tiny_network.special_tokens
    return network


def answers_of(network, guessed=True):
    """Trajectories whose tokens are in part what the network guesses."""
    mask_id = network.special_tokens.mask_id
    trajectories = replace(ANSWERS, tokens_BL=TOKENS.clone())
    states = trajectories.states(torch.tensor([0.9, 0.1]), torch.tensor([0.0, 0.0]), block_length=4, mask_id=mask_id)
    for row, length in enumerate(trajectories.lengths):
        best = network(states.tokens_BL[row : row + 1, :length]).logits[0].argmax(dim=-1)
        position = int(states.masked_BL[row].nonzero()[0])
        trajectories.tokens_BL[row, position] = best[position] if guessed else (best[position] + 1) % 90
    return trajectories, states


def losses_token_by_token(network, trajectories, states, *, weight, temperature):
    losses = []
    for row, length in enumerate(trajectories.lengths):
        logits = network(states.tokens_BL[row : row + 1, :length]).logits[0].double()
        terms = []
        for position in states.masked_BL[row].nonzero().squeeze(1).tolist():
            target = int(trajectories.tokens_BL[row, position])
            term = -torch.log(torch.softmax(logits[position], dim=0)[target])
            if int(logits[position].argmax()) == target:
                p = torch.softmax(logits[position] / temperature, dim=0)
                term = term - weight * sum(one * torch.log(one) for one in p if one > 0)
            terms.append(term)
        losses.append(torch.stack(terms).mean())
    return torch.stack(losses)


@pytest.mark.parametrize("in_parts", [False, True])
def test_loss_and_gradients_are_those_worked_out_token_by_token(network, in_parts, monkeypatch):
    settings = {"weight": 1.7, "temperature": 0.6}
    trajectories, states = answers_of(network)
    expected = losses_token_by_token(network, trajectories, states, **settings)
    expected.sum().backward()
    gradients = [weight.grad.clone() for weight in network.parameters()]
    network.zero_grad()
    if in_parts:
        monkeypatch.setattr(loss, "_LOGITS_BYTES", 1)
        monkeypatch.setattr(loss, "_ROWS_MULTIPLE", 2)
    found = certainty_losses(network, trajectories, states, **settings)
    found.losses_B.sum().backward()
    torch.testing.assert_close(found.losses_B, expected, rtol=1e-5, atol=1e-6)
    assert (found.accuracies_B > 0).all() and (found.accuracies_B < 1).any() and (found.entropies_B > 0.01).all()
    torch.testing.assert_close(found.losses_B, found.cross_entropies_B + 1.7 * found.entropies_B)
    for weight, gradient in zip(network.parameters(), gradients, strict=True):
        torch.testing.assert_close(weight.grad, gradient, rtol=1e-3, atol=1e-5)


def test_a_wrong_guess_has_only_its_cross_entropy(network):
    trajectories, states = answers_of(network, guessed=False)
    found = certainty_losses(network, trajectories, states, weight=5.0, temperature=0.5)
    wrong = found.accuracies_B == 0
    assert wrong.any()
    assert torch.equal(found.losses_B[wrong], found.cross_entropies_B[wrong])


def test_a_row_does_not_depend_on_its_batch(network):
    trajectories, states = answers_of(network)
    together = certainty_losses(network, trajectories, states, weight=2.0, temperature=0.5).losses_B
    second = Trajectories(TOKENS[1:], STEPS[1:], torch.tensor([3]), (11,))
    second.tokens_BL[0] = trajectories.tokens_BL[1]
    alone = second.states(
        torch.tensor([0.1]), torch.tensor([0.0]), block_length=4, mask_id=network.special_tokens.mask_id
    )
    found = certainty_losses(network, second, alone, weight=2.0, temperature=0.5).losses_B
    torch.testing.assert_close(found, together[1:])
