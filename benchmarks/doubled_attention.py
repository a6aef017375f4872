"""Attention over noisy sequences and their clean copies: tiles against one mask over all pairs of positions.

    python -m benchmarks.doubled_attention 2048 32    # positions of a sequence, and of a block

One layer of 16 heads on 4 key heads of width 64, forward and backward in float32 on one thread. The time is the least
CPU time of three alternated passes, memory the peak of what a pass allocates, inputs and gradients included.
"""

import time
from collections.abc import Callable
from itertools import accumulate

import torch
import typer
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from llada_core.model.attention import scaled_dot_product
from llada_core.model.doubled_attention import DoubledAttention
from llada_core.model.packed import PackedTokens

_HEADS, _KEY_HEADS, _WIDTH = 16, 4, 64
_PASSES = 3


def in_tiles(length: int, block_length: int, inputs: list[Tensor]) -> Tensor:
    """Attend as in training."""
    tokens_T = torch.zeros(length, dtype=torch.long)
    q_THD, k_TKD, v_TKD = inputs
    packed = PackedTokens.doubled(tokens_T, tokens_T, (length,), block_length)
    return DoubledAttention(packed).attend(q_THD, k_TKD, v_TKD, 0)


def under_one_mask(length: int, block_length: int, inputs: list[Tensor]) -> Tensor:
    """Attend as the published code does: by a mask [2 L, 2 L]."""
    blocks_L = torch.arange(length) // block_length
    is_own, is_before = blocks_L.unsqueeze(1) == blocks_L, blocks_L.unsqueeze(1) > blocks_L
    of_noisy = torch.cat((is_own, is_before), dim=1)
    of_clean = torch.cat((torch.zeros_like(is_own), is_own | is_before), dim=1)
    bias = torch.where(torch.cat((of_noisy, of_clean)), 0.0, -torch.inf)
    q, k, v = (x.transpose(0, 1).unsqueeze(0) for x in inputs)
    return scaled_dot_product(q, k, v, bias.repeat(_HEADS // _KEY_HEADS, 1))


def main(length: int, block_length: int) -> None:
    """Measure both, and print a line for each."""
    torch.set_num_threads(1)
    ways: dict[str, Callable[[int, int, list[Tensor]], Tensor]] = {"tiles": in_tiles, "one mask": under_one_mask}

    def run(name: str) -> None:
        heads = (_HEADS, _KEY_HEADS, _KEY_HEADS)
        inputs = [torch.randn(2 * length, number, _WIDTH, requires_grad=True) for number in heads]
        ways[name](length, block_length, inputs).sum().backward()

    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(_PASSES):
        for name in ways:
            start = time.process_time()
            run(name)
            seconds[name].append(time.process_time() - start)
    for name in ways:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            run(name)
        results = profiler.profiler
        assert results is not None
        events = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
        peak = max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))
        typer.echo(f"{name:>8}: {min(seconds[name]):.2f} s, {peak / 1e6:.0f} MB")


if __name__ == "__main__":
    typer.run(main)
