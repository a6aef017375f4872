"""Memory in use on the heap."""

import sys

import pytest
import torch

from server.heap import heap_meter
from tests.server.conftest import gauge

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the count is glibc's")
MEGABYTE = 2**20


@pytest.mark.parametrize("megabytes", [0.1, 50], ids=["within an arena", "mapped alone"])
def test_what_is_allocated_counts_until_it_is_freed(megabytes):
    bytes_in_use = heap_meter()
    assert bytes_in_use is not None
    before = bytes_in_use()
    tensors = [torch.ones(int(megabytes * MEGABYTE), dtype=torch.uint8) for _ in range(20)]
    assert bytes_in_use() - before == pytest.approx(20 * megabytes * MEGABYTE, rel=0.1)
    del tensors
    assert bytes_in_use() - before < MEGABYTE


def test_a_server_reports_it(tiny_url):
    assert 10 * MEGABYTE < gauge(tiny_url, "llada_heap_bytes") < 10_000 * MEGABYTE
