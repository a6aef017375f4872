"""The network that a run starts from, frozen: what objectives compare the trained one with."""

import copy

from torch import nn

from llada_core.model.network import Network


def frozen_copy(model: Network, *, is_sharded: bool) -> Network:
    """Copy a model and freeze the copy. Under adapters it copies these alone, and shares the frozen base.

    It has the dtypes of the model, so that at first both compute the same to the last bit.

    Args:
        is_sharded: share nothing; FSDP2 shards the weights of a module in one place only.
    """
    shared = () if is_sharded else [part for part in model.modules() if not _is_trained(part)]
    reference = copy.deepcopy(model, {id(part): part for part in shared})
    return reference.requires_grad_(False)


def _is_trained(module: nn.Module) -> bool:
    return any(weight.requires_grad for weight in module.parameters())
