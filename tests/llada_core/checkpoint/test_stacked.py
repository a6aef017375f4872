"""Checkpoints that hold the experts of a layer in one tensor."""

import json
import shutil
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llada_core import load_checkpoint, load_model
from llada_core.errors import UnsupportedCheckpointError
from llada_core.model.packed import PackedTokens
from tests.conftest import GOLDEN

MODEL = GOLDEN / "family" / "llada_moe" / "models" / "tiny-variant"
NUM_EXPERTS = 8


@dataclass
class Stacked:
    """A folder, and the tensors that are to be written into it."""

    folder: Path
    tensors: dict[str, Any]

    def write(self) -> Path:
        save_file(self.tensors, self.folder / "model.safetensors")
        return self.folder


@pytest.fixture
def stacked(tmp_path) -> Stacked:
    """The golden model, its experts stacked as by dInfer's `fuse_moe`: gate above up, and down."""
    folder = shutil.copytree(MODEL, tmp_path / "model")
    fields = json.loads((MODEL / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, "architectures": ["FusedLLaDAMoEModelLM"]}))
    tensors = load_file(MODEL / "model.safetensors")
    prefix = "model.layers.1.mlp"
    gates, ups, downs = (
        [tensors.pop(f"{prefix}.experts.{expert}.{name}_proj.weight") for expert in range(NUM_EXPERTS)]
        for name in ("gate", "up", "down")
    )
    tensors[f"{prefix}.w1"] = torch.stack([torch.cat(pair) for pair in zip(gates, ups, strict=True)])
    tensors[f"{prefix}.w2"] = torch.stack(downs)
    return Stacked(folder, tensors)


@torch.inference_mode()
def test_experts_as_dfactory_stacks_them_are_the_same_weights(tmp_path):
    model = GOLDEN / "family" / "llada2_moe" / "models" / "tiny-mini-like"
    folder = shutil.copytree(model, tmp_path / "model")
    tensors = load_file(model / "model.safetensors")
    for depth, part in product((1, 2), ("gate", "up", "down")):
        prefix = f"model.layers.{depth}.mlp.experts"
        experts = [tensors.pop(f"{prefix}.{expert}.{part}_proj.weight") for expert in range(16)]
        tensors[f"{prefix}.{part}_proj"] = torch.stack(experts)
    save_file(tensors, folder / "model.safetensors")
    packed = PackedTokens(torch.arange(3, 20), (17,))
    for load in (load_checkpoint, load_model):
        ours, theirs = (model.head(model.hidden_states(packed)) for model in (load(folder), load(model)))
        assert torch.equal(ours, theirs)


@torch.inference_mode()
def test_stacked_experts_are_the_same_weights(stacked):
    packed = PackedTokens(torch.arange(3, 20), (17,))
    folder = stacked.write()
    for load in (load_checkpoint, load_model):
        ours, theirs = (model.head(model.hidden_states(packed)) for model in (load(folder), load(MODEL)))
        assert torch.equal(ours, theirs)
    assert load_checkpoint(folder).state_dict().keys() == load_checkpoint(MODEL).state_dict().keys()


@pytest.mark.parametrize(("name", "shape"), [("w1", (7, 32, 64)), ("w1", (8, 31, 64)), ("w2", (8, 64))])
def test_a_stack_of_another_shape_is_refused(stacked, name, shape):
    stacked.tensors[f"model.layers.1.mlp.{name}"] = torch.zeros(shape)
    with pytest.raises(UnsupportedCheckpointError, match="missing tensors in the weights"):
        load_model(stacked.write())


def test_an_expert_that_is_there_twice_is_refused(stacked):
    stacked.tensors["model.layers.1.mlp.experts.3.gate_proj.weight"] = torch.zeros(16, 64)
    with pytest.raises(UnsupportedCheckpointError, match=r"experts\.3\.gate_proj.* which .*w1 holds too"):
        load_model(stacked.write())
