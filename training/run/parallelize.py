"""How a model is spread over the processes: DDP replicates it, FSDP2 shards it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from training.distributed import World
from training.run.objective import Objective


def parallelize(objective: Objective, world: World, strategy: Literal["ddp", "fsdp"], *, bfloat16: bool) -> nn.Module:
    """Spread the objective's model over all processes; alone it is left as it is.

    For FSDP2 the main process has the weights, on the CPU; the others have a model on the meta device, and each is
    sent its shards.

    A part's loss must be multiplied by `world.size`: both strategies average gradients, and the parts add up.
    """
    if world.size == 1:
        return objective
    if strategy == "ddp":
        return DistributedDataParallel(objective, gradient_as_bucket_view=True)
    # Gathered in bfloat16, half the traffic; reduced in float32, so that the sum over processes is exact enough.
    # Inputs stay as they are: RoPE's tables are float32.
    policy = MixedPrecisionPolicy(
        torch.bfloat16 if bfloat16 else None, torch.float32 if bfloat16 else None, cast_forward_inputs=False
    )
    model = objective.model
    weights = model.state_dict() if world.is_main else {}
    nn.Module.to(model, "meta")
    for block in model.model.transformer["blocks"]:
        fully_shard(block, mp_policy=policy)
    fully_shard(objective, mp_policy=policy)
    model.to_empty(device=world.device)
    set_model_state_dict(
        model, weights, options=StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=True)
    )
    return objective


def accumulation(module: nn.Module, *, is_last: bool) -> AbstractContextManager[None]:
    """DDP's gradients travel between processes once an optimizer step, with its last micro-batch.

    FSDP2's travel with every micro-batch: kept back, they would be whole on every device, 4 bytes a parameter.
    """
    if isinstance(module, DistributedDataParallel) and not is_last:
        return module.no_sync()
    return nullcontext()


@contextmanager
def whole_weights(module: nn.Module) -> Iterator[None]:
    """All weights on every process, for code that calls the model's own methods: validation and generation."""
    sharded = [part for part in module.modules() if isinstance(part, FSDPModule)]
    for part in sharded:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in sharded:
            part.reshard()
            # The root keeps its weights between forward and backward, as FSDP2 itself would have it.
            part.set_reshard_after_forward(part is not module, recurse=False)
