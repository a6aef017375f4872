"""The processes of a run, one or many: the place of this one, and the operations that involve all of them.

Plain `torchrun` starts the processes. The trainer's code is the same for any number of them.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from training.errors import ElsewhereError, TrainingError
from training.launch import read_launch

# The main process tokenises while the others wait for it.
_TIMEOUT = timedelta(hours=12)

T = TypeVar("T")

# Held until the process ends; `join_world` says why.
_held_groups: list[object] = []


@dataclass(frozen=True, slots=True)
class World:
    """This process and its place among all processes of the run."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def part_of(self, total: int) -> range:
        """The rows that this process computes of a batch of `total`."""
        share = total // self.size
        return range(self.rank * share, (self.rank + 1) * share)

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any process; every process gets the same answer."""
        return flag if self.size == 1 else bool(self.sum(torch.tensor(int(flag))).item())

    def from_all(self, value: T) -> list[T]:
        """The values of all processes in their order; every process must call it, and gets all of them."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def error(self, message: str) -> TrainingError:
        """The error for a reason that stops every process alike; only the main one prints it."""
        return TrainingError(message) if self.is_main else ElsewhereError(message)

    def from_main(self, work: Callable[[], T]) -> T:
        """Run `work` on the main process while the others wait, and return its result on all of them.

        Raises:
            ElsewhereError: on the other processes, for anything that the main one raises.
        """
        if self.size == 1:
            return work()
        results: list[Any] = [None]
        try:
            if self.is_main:
                results = [(work(),)]
        finally:
            # Needed after a failure too, or the others would wait for hours.
            dist.broadcast_object_list(results, device=torch.device("cpu"))
        if results[0] is None:
            raise ElsewhereError("the first process failed")
        result: T = results[0][0]
        return result


@contextmanager
def join_world(device_name: str) -> Iterator[World]:
    """Join the processes that `torchrun` started, or run as the only one.

    Raises:
        TrainingError: this machine does not have the device.
    """
    launch = read_launch()
    device = _device(device_name, launch.local_rank if launch.world_size > 1 else None)
    if launch.world_size == 1:
        yield World(0, 1, device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    # Both backends are needed, since flags and checkpoints travel as CPU tensors.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT)
    # DDP's reducer must not be the last to hold the group: freeing it there joins gloo's thread under Python's lock,
    # which that thread may be waiting for.
    _held_groups.append(dist.group.WORLD)
    try:
        yield World(launch.rank, launch.world_size, device)
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
