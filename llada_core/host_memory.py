"""The host's memory allocator, set for tensors that come and go at every step."""

import ctypes
import platform

# Of mallopt, from malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8


def keep_freed_memory() -> None:
    """Let glibc's malloc reuse the memory of a step's tensors in the next step.

    By default it gives large blocks back to the system at once, and every step faults its pages in anew: a tenth of
    the time of a denoising step over 32 rows of logits, half the time of a training step.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most that glibc allows
        libc.mallopt(_M_TRIM_THRESHOLD, 128 << 20)
        # One heap for all threads, so that they do not each keep what they have freed.
        libc.mallopt(_M_ARENA_MAX, 1)
