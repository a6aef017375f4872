"""The host's memory: how much there is, and settings of its allocator for tensors that come and go at every step."""

import ctypes
import platform
from pathlib import Path

import psutil  # type: ignore[import-untyped]

# Parameters of mallopt, from malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8


def total_memory() -> int:
    """Return the bytes that this process could have if nothing else ran: the machine's, or its container's limit."""
    total = int(psutil.virtual_memory().total + psutil.swap_memory().total)
    try:
        # cgroup v2; without a limit the file says "max".
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return total


def keep_freed_memory(*, all_of_it: bool = False) -> None:
    """Let glibc's malloc reuse the memory of a step's tensors in the next step.

    By default malloc returns large blocks to the system at once, and every step faults its pages in again: a tenth of
    the time of a denoising step over 32 rows of logits, half the time of a training run of the demo model.

    Args:
        all_of_it: keep blocks above 32 MB too, however much is free; for training, whose steps are alike.
    """
    if (libc := _glibc()) is None:
        return
    if all_of_it:
        libc.mallopt(_M_MMAP_MAX, 0)
    else:
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most that glibc allows
    libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1 if all_of_it else 128 << 20)
    # One heap for all threads, so that they share the memory they have freed instead of each keeping its own.
    libc.mallopt(_M_ARENA_MAX, 1)


def return_freed_memory() -> None:
    """Give back to the system what is free between tensors that stay: a fifth of a model's weights while they load."""
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
