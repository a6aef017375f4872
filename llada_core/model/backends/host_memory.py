"""The host's memory allocator, set for tensors that come and go at every step."""

import ctypes
import platform

# Of mallopt, from malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4
_M_ARENA_MAX = -8


def keep_freed_memory(*, all_of_it: bool = False) -> None:
    """Let glibc's malloc reuse the memory of a step's tensors in the next step.

    By default it gives large blocks back to the system at once, and every step faults its pages in anew: a tenth of
    the time of a denoising step over 32 rows of logits; a training run of the demo model spent half its time so.

    Args:
        all_of_it: blocks above 32 MB, too, and however much is free: for training, whose steps are alike.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    if all_of_it:
        libc.mallopt(_M_MMAP_MAX, 0)
    else:
        libc.mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the most that glibc allows
    libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1 if all_of_it else 128 << 20)
    # One heap for all threads, so that they do not each keep what they have freed.
    libc.mallopt(_M_ARENA_MAX, 1)
