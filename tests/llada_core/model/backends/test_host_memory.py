"""Settings of the allocator, seen from the size of the process."""

import platform
import subprocess
import sys
from textwrap import dedent

import pytest


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of glibc's malloc")
def test_memory_that_is_free_between_tensors_goes_back_to_the_system():
    code = """
        import psutil, torch
        from llada_core.model.backends.host_memory import keep_freed_memory, return_freed_memory
        keep_freed_memory()
        kept = [torch.ones(1 << 18) for _ in range(200)][::2]
        before = psutil.Process().memory_info().rss
        return_freed_memory()
        print((before - psutil.Process().memory_info().rss) / 1e6)
    """
    ran = subprocess.run([sys.executable, "-c", dedent(code)], stdout=subprocess.PIPE, text=True, check=True)
    # Of 100 MB that were freed.
    assert float(ran.stdout) > 80
