"""Recognises that a device or the host is out of memory."""

import torch


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory was what was lacking; the CPU's allocator has no error class of its own."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
