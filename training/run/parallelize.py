"""Spreading a model over the processes: DDP replicates it, FSDP2 (`fully_shard`) shards it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel

from llada_core.model.network import Network
from training.data.batches import Batch
from training.distributed import World


@dataclass(frozen=True, slots=True)
class ParallelModel:
    """A model and its objective, spread over all processes.

    Attributes:
        model: the network itself; under FSDP2 its weights are sharded.
        objective: the loss around it, called with a `Batch`. Multiply a part's loss by `world.size` before backward:
            both strategies average gradients over the processes, and the parts of a step add up.
        bfloat16: whether to compute in bfloat16.
    """

    model: Network
    objective: nn.Module
    world: World
    bfloat16: bool

    @property
    def unwrapped(self) -> nn.Module:
        """The objective itself, whose networks' methods may be called on one process alone."""
        if not isinstance(self.objective, DistributedDataParallel):
            return self.objective
        objective: nn.Module = self.objective.module
        return objective

    def autocast(self) -> torch.autocast:
        """A context that computes in the run's dtype."""
        return torch.autocast(self.world.device.type, torch.bfloat16, enabled=self.bfloat16)

    def accumulation(self, *, is_last: bool) -> AbstractContextManager[None]:
        """A context for one micro-batch. DDP exchanges gradients once per optimizer step, with the last of them.

        FSDP2 exchanges them with every micro-batch: unreduced, they would take 4 bytes per parameter on every device.
        """
        if isinstance(self.objective, DistributedDataParallel) and not is_last:
            return self.objective.no_sync()
        return nullcontext()

    def prepare(self, batch: Batch) -> None:
        """Let FSDP2 set itself up, which it does in the first forward pass of the whole; needed before other uses."""
        if isinstance(self.objective, FSDPModule):
            with torch.no_grad(), self.autocast():
                self.objective(batch)

    @contextmanager
    def whole_weights(self) -> Iterator[None]:
        """All weights on every process, for code that calls the network's own methods: validation and generation."""
        sharded = [part for part in self.objective.modules() if isinstance(part, FSDPModule)]
        for part in sharded:
            part.set_reshard_after_forward(False, recurse=False)
            part.unshard()
        try:
            yield
        finally:
            for part in sharded:
                part.reshard()
                # The root keeps its weights between forward and backward, as is FSDP2's default.
                part.set_reshard_after_forward(part is not self.objective, recurse=False)


def parallelize(
    objective: nn.Module, model: Network, world: World, strategy: Literal["ddp", "fsdp"], *, bfloat16: bool
) -> ParallelModel:
    """Spread the objective and the networks in it over all processes; a single process keeps them as they are.

    For FSDP2 the main process has the weights, on the CPU; the others have networks on the meta device and receive
    their shards from it.

    Args:
        model: the network among them that is trained.
    """
    if world.size > 1 and strategy == "ddp":
        objective = DistributedDataParallel(objective, gradient_as_bucket_view=True)
    elif world.size > 1:
        _shard(objective, world, bfloat16=bfloat16)
    return ParallelModel(model, objective, world, bfloat16)


def _shard(objective: nn.Module, world: World, *, bfloat16: bool) -> None:
    # Gathered in bfloat16, half the traffic; reduced in float32, so that the sum over processes is exact enough.
    # Inputs keep their dtype: RoPE's tables are float32.
    policy = MixedPrecisionPolicy(
        torch.bfloat16 if bfloat16 else None, torch.float32 if bfloat16 else None, cast_forward_inputs=False
    )
    networks = [module for module in objective.modules() if isinstance(module, Network)]
    weights = [network.state_dict() if world.is_main else {} for network in networks]
    for network in networks:
        nn.Module.to(network, "meta")
        for block in network.blocks:
            fully_shard(block, mp_policy=policy)
    fully_shard(objective, mp_policy=policy)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True, strict=True)
    for network in networks:
        network.to_empty(device=world.device)
        set_model_state_dict(network, weights.pop(0), options=options)
