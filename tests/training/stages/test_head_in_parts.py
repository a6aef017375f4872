"""The head in parts gives the loss and every gradient of the head at once, however the model is spread."""

import pytest
import torch
import torch.distributed as dist
from peft import LoraConfig, inject_adapter_in_model
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from llada_core.model.architectures.llada.config import LLaDAConfig
from llada_core.model.network import Network
from llada_core.model.published_training import LLADA_TRAINING
from tests.training.fake_samples import EOS, batches_of, samples_of
from training.data.batches import Batching
from training.stages.objective import Objective
from training.stages.sft import SFT

CONFIG = {
    "d_model": 32,
    "n_heads": 2,
    "n_layers": 2,
    "vocab_size": 200,
    "mlp_hidden_size": 64,
    "max_sequence_length": 64,
}


@pytest.fixture
def one_rank():
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    yield
    dist.destroy_process_group()


def plain(objective):
    return objective


def adapters(objective):
    inject_adapter_in_model(
        LoraConfig(r=4, target_modules=r".*\.(q_proj|ff_proj)", init_lora_weights=False), objective.model
    )
    return objective


def activation_checkpointing(objective):
    objective.model.recompute_blocks()
    return objective


def ddp(objective):
    return DistributedDataParallel(objective, gradient_as_bucket_view=True)


def fsdp(objective):
    mesh = init_device_mesh("cpu", (1,))
    for block in objective.model.blocks:
        fully_shard(block, mesh=mesh)
    return fully_shard(objective, mesh=mesh)


def loss_and_gradients(spread, *, weight_tying):
    torch.manual_seed(0)
    model = Network(LLaDAConfig(**CONFIG, weight_tying=weight_tying)).train()
    objective = spread(Objective(model, mask_id=199, seed=0, noise=LLADA_TRAINING))
    samples = samples_of(*range(40, 60), prompt=2)
    planner = SFT(64).planner(samples, Batching(16, seed=0, eos_id=EOS))
    (batch,) = batches_of(planner, 1)
    loss = objective(batch).loss
    loss.backward()
    gradients = {
        name: weight.grad.full_tensor() if isinstance(weight.grad, DTensor) else weight.grad
        for name, weight in objective.named_parameters()
        if weight.grad is not None
    }
    return loss, gradients


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("weight_tying", [False, True])
@pytest.mark.parametrize("spread", [plain, adapters, activation_checkpointing, ddp, fsdp], ids=lambda f: f.__name__)
def test_loss_and_gradients_are_those_of_the_head_at_once(spread, weight_tying, monkeypatch):
    loss, gradients = loss_and_gradients(spread, weight_tying=weight_tying)
    monkeypatch.setattr("llada_core.diffusion.loss._LOGITS_BYTES", 1)
    loss_in_parts, gradients_in_parts = loss_and_gradients(spread, weight_tying=weight_tying)
    torch.testing.assert_close(loss_in_parts, loss, rtol=1e-6, atol=0)
    assert gradients_in_parts.keys() == gradients.keys() and len(gradients) > 4
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradients_in_parts[name], gradient, rtol=1e-4, atol=1e-7, msg=name)
