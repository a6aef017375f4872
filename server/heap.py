"""The memory in use on the C heap, from which torch, tokenizers and the larger of Python's objects come.

The resident memory of a process also counts what was freed and not given back to the system: it rises to the highest
mark ever reached, and cannot tell a leak from a busy hour.
"""

import ctypes
from collections.abc import Callable


class _MallInfo(ctypes.Structure):
    """glibc's `struct mallinfo2`, in bytes."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


def heap_meter() -> Callable[[], int] | None:
    """A function that returns the bytes in use; None where the C library has no such count (glibc has, since 2.33)."""
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is None:
        return None
    mallinfo.restype = _MallInfo

    def bytes_in_use() -> int:
        info = mallinfo()
        # Blocks within the arenas, and those mapped one by one.
        in_use: int = info.uordblks + info.hblkhd
        return in_use

    return bytes_in_use
