"""One process or many: who this process is, and how the model is spread over all of them.

Plain `torchrun` starts the processes; DDP replicates the model, FSDP2 (`fully_shard`) shards weights, gradients and
optimizer. The trainer's code is the same in every case.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from training.errors import ElsewhereError, TrainingError

# Rank 0 tokenises while the others wait at a barrier.
_TIMEOUT = timedelta(hours=12)

T = TypeVar("T")

# Until the process ends.
_held_groups: list[object] = []


@dataclass(frozen=True, slots=True)
class World:
    """This process among all of them."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def part_of(self, total: int) -> range:
        """The rows of a batch that this process computes."""
        share = total // self.size
        return range(self.rank * share, (self.rank + 1) * share)

    def sum(self, tensor: Tensor) -> Tensor:
        """Summed over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether the flag is set anywhere; every process hears the same answer."""
        return flag if self.size == 1 else bool(self.sum(torch.tensor(int(flag))).item())

    def error(self, message: str) -> TrainingError:
        """For what stops every process alike: the main one tells."""
        return TrainingError(message) if self.is_main else ElsewhereError(message)

    def from_main(self, work: Callable[[], T]) -> T:
        """What `work` gives on the main process, which alone runs it while the others wait.

        Raises:
            ElsewhereError: on the others, whatever the main process raises.
        """
        if self.size == 1:
            return work()
        found: list[Any] = [None]
        try:
            if self.is_main:
                found = [(work(),)]
        finally:
            # Of a failure too: a process that waits for more than it gets would wait for hours.
            dist.broadcast_object_list(found, device=torch.device("cpu"))
        if found[0] is None:
            raise ElsewhereError("the first process failed")
        result: T = found[0][0]
        return result


@contextmanager
def world(device: str) -> Iterator[World]:
    """Join the processes that `torchrun` started, or be the only one.

    Raises:
        TrainingError: a device that is not there.
    """
    size, rank, local_rank = (
        int(os.environ.get(name, default)) for name, default in (("WORLD_SIZE", 1), ("RANK", 0), ("LOCAL_RANK", 0))
    )
    chosen = _device(device, local_rank if size > 1 else None)
    if size == 1:
        yield World(0, 1, chosen)
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    # Both: flags and checkpoints travel as CPU tensors.
    dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo", timeout=_TIMEOUT)
    # DDP's reducer must not be the last to hold the group: it would be freed with Python's lock held, joining gloo's
    # thread, which may be waiting for that lock. A finished run has hung so.
    _held_groups.append(dist.group.WORLD)
    try:
        yield World(rank, size, chosen)
    finally:
        dist.destroy_process_group()


def _device(name: str, local_rank: int | None) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise TrainingError(f"--device is {name!r}; it must be cpu, cuda or auto") from None
    if device.type not in ("cpu", "cuda"):
        raise TrainingError(f"--device is {name!r}; it must be cpu, cuda or auto")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise TrainingError(f"--device is {name!r}; this machine has no CUDA device")
    return torch.device("cuda", local_rank) if device.type == "cuda" and local_rank is not None else device
