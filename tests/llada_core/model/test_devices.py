"""Every tensor is created on the model's device: everything runs on `meta`, where mixing devices raises."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from llada_core import GenerationParams
from llada_core.model.architectures.llada.config import LLaDAConfig
from llada_core.model.kv_cache import KVCache
from llada_core.model.network import Network
from llada_core.model.packed import PackedTokens, Rows
from llada_core.sampling.prepare import Vocabulary, prepare_response
from llada_core.sampling.sampler import MAX_HEAD_ROWS, Sampler, _groups
from llada_core.text.special_tokens import SpecialTokens
from training.data.batches import Batch
from training.stages.objective import corrupt_batch

META = torch.device("meta")


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=str)
def model(request):
    config = LLaDAConfig(d_model=32, n_heads=4, n_kv_heads=2, n_layers=2, mlp_hidden_size=48, vocab_size=60)
    with META:
        model = Network(config).to(request.param)
    model.special_tokens = SpecialTokens(59, 58, 57)
    return model


@torch.inference_mode()
def test_a_forward_over_whole_sequences_and_cached_windows(model):
    cache = KVCache(model.shape, 9, dtype=model.dtype, device=META)
    packed = PackedTokens(
        torch.zeros(7, dtype=torch.long, device=META), (4, 3), (np.arange(4), np.array([0, 5, 8])), (None, cache)
    )
    rows = Rows.of(packed, [np.arange(2), np.arange(3)])
    assert model.head(model.hidden_states(packed, rows)).shape == (5, 60)


@torch.inference_mode()
def test_a_sampler_step_of_every_kind(model):
    settings = [
        {},
        {"cfg_scale": 1.0, "cache": "dual"},
        {"temperature": 1.0, "top_k": 5, "top_p": 0.9},
        {"remasking": "random", "logits_eos_inf": True},
        {"entropy_bound": 0.1, "remasking": "margin", "confidence_eos_eot_inf": True},
    ]
    canvases = [
        prepare_response([1, 2, 3], GenerationParams(gen_length=12, **setting), Vocabulary.of(model))
        for setting in settings
    ]
    sampler = Sampler(model)
    # All of `Sampler.step` before its one copy to the host, which a tensor without data cannot make.
    turns = [sampler._turn(canvas) for canvas in canvases]
    groups = _groups(sampler._hidden_states(turns), MAX_HEAD_ROWS)
    proposals = [packed for group in groups for _, packed in sampler._propose(group, None)]
    assert [(proposal.device.type, proposal.shape) for proposal in proposals] == [("meta", (4, 12))] * len(settings)


class Operations(TorchDispatchMode):
    """Counts what would be launched on an accelerator: all operations but those that only look at a tensor anew."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        self.count += not operation.is_view
        return operation(*arguments, **(keywords or {}))


@torch.inference_mode()
def test_proposals_take_as_many_operations_for_many_canvases_as_for_two(model):
    kinds = [
        {"entropy_threshold": 0.1, "suffix_window": 2},
        {"temperature": 1.0, "top_k": 5, "top_p": 0.9, "cfg_scale": 1.0},
        {"confidence_eos_eot_inf": True, "min_tokens": 4, "logit_bias": {1: 2.0, 5: -1.0}},
        {"remasking": "random"},
    ]

    def count(number):
        canvases = [
            prepare_response([1] * (1 + i % 3), GenerationParams(gen_length=12, seed=i, **kind), Vocabulary.of(model))
            for i in range(number)
            for kind in kinds
        ]
        sampler = Sampler(model)
        (group,) = _groups(sampler._hidden_states([sampler._turn(canvas) for canvas in canvases]), MAX_HEAD_ROWS)
        with Operations() as operations:
            proposals = list(sampler._propose(group, None))
        assert sum(packed.shape[1] for _, packed in proposals) == 12 * len(canvases)
        return operations.count

    assert count(2) == count(15)


def test_a_training_step(model):
    batch = Batch(
        samples_B=torch.arange(2),
        noise_levels_B=torch.full((2,), 0.5, dtype=torch.float64),
        tokens_BL=torch.zeros(2, 6, dtype=torch.long),
        target_starts_B=torch.tensor([0, 2]),
        target_stops_B=torch.tensor([6, 6]),
        normalizer_B=torch.ones(2, dtype=torch.float64),
        spans=((6,), (6,)),
        epochs_B=torch.zeros(2, dtype=torch.long),
    ).to(META)
    corrupted, _, _ = corrupt_batch(batch, mask_id=59, seed=0)
    # Which rows are masked is data; a fixed number of them stands in.
    packed = PackedTokens(corrupted.tokens_BL.flatten(), (6, 6))
    logits_RV = model.head(model.hidden_states(packed)[torch.arange(5, device=META)]).float()
    losses_R = torch.nn.functional.cross_entropy(logits_RV, batch.tokens_BL.flatten()[:5], reduction="none")
    (losses_R.sum() / batch.normalizer_B.sum() / corrupted.p_mask_B.sum()).backward()
    torch.optim.AdamW(model.parameters()).step()
    assert all(parameter.grad.device == META for parameter in model.parameters())


def test_a_mixture_of_devices_would_be_noticed():
    with pytest.raises(RuntimeError, match="device"):
        torch.zeros(3, device=META) + torch.zeros(3)
