"""Recognises "out of memory" errors and names the options that reduce memory."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from training.errors import TrainingError


@contextmanager
def memory_advice() -> Iterator[None]:
    """Turn "out of memory" into a `TrainingError` that names the options that reduce memory."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            "out of memory: lower --micro-batch-size (the result stays the same) or --max-length, or add "
            "--activation-checkpointing, --lora-r, or more processes with --strategy fsdp; --dry-run estimates each "
            f"({str(error).partition(chr(10))[0] or 'the host has no more'})"
        ) from None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device or the host is out of memory; the CPU's allocator has no error class of its own."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
