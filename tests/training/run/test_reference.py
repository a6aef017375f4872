"""The frozen copy that objectives compare with."""

import copy

import torch

from llada_core.model.packed import PackedTokens
from training.options.fields import LoraParams
from training.run.lora import add_adapters
from training.run.reference import frozen_copy

PACKED = PackedTokens(torch.arange(20, 32), (5, 7))


def disturb(model):
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.1)


def test_a_copy_stays_what_the_model_was(tiny_network):
    model = copy.deepcopy(tiny_network).requires_grad_(True)
    reference = frozen_copy(model, is_sharded=False)
    before = model.hidden_states(PACKED)
    disturb(model)
    assert torch.equal(reference.hidden_states(PACKED), before)
    assert not any(weight.requires_grad for weight in reference.parameters())
    assert all(weight.requires_grad for weight in model.parameters())


def test_under_adapters_the_copy_is_the_model_without_them_and_shares_its_base(tiny_network):
    before = tiny_network.hidden_states(PACKED)
    model = copy.deepcopy(tiny_network)
    add_adapters(model, LoraParams(2, 4, ("q_proj", "ff_proj"), token_ids=(21, 22)), seed=0)
    reference, whole = (frozen_copy(model, is_sharded=is_sharded) for is_sharded in (False, True))
    disturb(model)
    assert torch.equal(reference.hidden_states(PACKED), before) and torch.equal(whole.hidden_states(PACKED), before)
    assert not torch.equal(model.hidden_states(PACKED), before)
    ours = {id(weight) for weight in model.parameters()}
    shared = [weight for weight in reference.parameters() if id(weight) in ours]
    assert sum(weight.numel() for weight in shared) == sum(weight.numel() for weight in tiny_network.parameters())
    assert not ours & {id(weight) for weight in whole.parameters()}
    assert sum(weight.requires_grad for weight in model.parameters()) > 0


def test_adapters_that_were_trained_before_belong_to_the_copy(tiny_network):
    model = copy.deepcopy(tiny_network)
    add_adapters(model, LoraParams(2, 4, ("q_proj",)), seed=0)
    disturb(model)
    trained = model.hidden_states(PACKED)
    reference = frozen_copy(model, is_sharded=False)
    disturb(model)
    assert torch.equal(reference.hidden_states(PACKED), trained)
