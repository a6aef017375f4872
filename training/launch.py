"""The environment in which `torchrun` starts a process; the one place that reads it, and free of torch."""

import os
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Launch:
    """This process among those that were started together.

    Attributes:
        rank: from 0 to `world_size` - 1, over all machines.
        local_rank, local_world_size: the same on this machine.
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int

    @property
    def is_main(self) -> bool:
        """Whether this process speaks for all."""
        return self.rank == 0


def read_launch() -> Launch:
    """Read the variables of `torchrun`; without them, this is the only process."""
    return Launch(
        rank=int(os.environ.get("RANK", "0")),
        world_size=int(os.environ.get("WORLD_SIZE", "1")),
        local_rank=int(os.environ.get("LOCAL_RANK", "0")),
        local_world_size=int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
    )
