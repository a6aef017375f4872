import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llada_core.errors import InvalidParameterError
from llada_core.sampling.params import GenerationParams
from llada_core.sampling.schedule import (
    Schedule,
    plan_blocks,
    share_steps,
    steps_per_block,
    timestep_schedule,
    transfer_schedule,
)
from tests.conftest import GOLDEN_CASES
from tests.llada_core.model.architectures.test_family import CASES

DREAM_SCHEDULES = CASES["dream"]["schedule"]


@pytest.mark.parametrize("case", GOLDEN_CASES["schedule"], ids=lambda case: f"{case['masked']}-in-{case['steps']}")
def test_schedules_equal_the_published_ones_without_their_idle_steps(case):
    assert transfer_schedule(case["masked"], case["steps"]) == [count for count in case["transfer"] if count]


@pytest.mark.parametrize("case", DREAM_SCHEDULES, ids=lambda case: f"{case['masked']}-in-{case['steps']}")
def test_schedules_in_time_equal_the_published_ones_without_their_idle_steps(case):
    counts = timestep_schedule(case["masked"], case["steps"], case["eps"])
    assert counts == [count for count in case["transfer"] if count]


@given(st.integers(1, 200), st.integers(1, 300), st.floats(1e-3, 0.9))
def test_a_schedule_in_time_commits_everything_and_no_step_is_idle(num_masked, steps, eps):
    counts = timestep_schedule(num_masked, steps, eps)
    assert sum(counts) == num_masked
    assert min(counts) >= 1 and len(counts) <= steps


def test_steps_per_block_are_those_of_every_block_with_masks():
    is_masked = np.array([True] * 4 + [False] * 4 + [True] * 2)
    params = GenerationParams(gen_length=10, block_length=4, steps_per_block=3)
    shares = share_steps(is_masked, params)
    assert shares == (3, 0, 3)
    assert [block.transfers for block in plan_blocks(is_masked, params, shares)] == [(2, 1, 1), (1, 1)]


@given(st.integers(1, 200), st.integers(1, 300))
def test_a_schedule_commits_everything_and_no_step_is_idle(num_masked, steps):
    schedule = transfer_schedule(num_masked, steps)
    assert sum(schedule) == num_masked
    assert min(schedule) >= 1
    assert max(schedule) - min(schedule) <= 1
    assert schedule == sorted(schedule, reverse=True)


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.integers(1, 200))
def test_every_block_with_masks_gets_a_step_and_all_steps_are_given_out(masked_per_block, steps):
    open_blocks = sum(masked > 0 for masked in masked_per_block)
    if steps < open_blocks:
        with pytest.raises(InvalidParameterError, match=f"steps is {steps}; it must be at least .* {open_blocks}"):
            steps_per_block(masked_per_block, steps)
        return
    shares = steps_per_block(masked_per_block, steps)
    assert all((share >= 1) == (masked > 0) for share, masked in zip(shares, masked_per_block, strict=True))
    assert sum(shares) == (steps if open_blocks else 0)


@pytest.mark.parametrize(
    ("masked_per_block", "steps", "shares"),
    [
        ([32, 32, 32, 32], 128, [32, 32, 32, 32]),
        ([32, 32], 16, [8, 8]),
        ([32, 32, 1], 65, [32, 32, 1]),
        ([32, 16], 12, [8, 4]),
        ([8, 8, 8], 4, [2, 1, 1]),
        ([32, 1, 1, 1], 4, [1, 1, 1, 1]),
        ([30, 10, 0], 20, [15, 5, 0]),
        ([32, 32, 8], 7, [3, 3, 1]),
    ],
)
def test_steps_are_shared_in_proportion_the_earlier_block_first(masked_per_block, steps, shares):
    assert steps_per_block(masked_per_block, steps) == shares


def test_the_cursor_goes_through_the_blocks_and_refreshes_at_each_start_and_interval():
    is_masked = np.array([True] * 3 + [False] * 3 + [True] * 2)
    params = GenerationParams(gen_length=8, block_length=3)
    schedule = Schedule(
        plan_blocks(is_masked, params, share_steps(is_masked, params)), is_masked, cache_refresh_interval=2
    )
    visited = []
    while not schedule.is_over:
        visited.append((schedule.block.index, schedule.block_step, schedule.num_transfers, schedule.is_refresh))
        is_masked[is_masked.argmax()] = False
        schedule.advance(is_masked)
    assert visited == [(0, 0, 1, True), (0, 1, 1, False), (0, 2, 1, True), (2, 0, 1, True), (2, 1, 1, False)]


def test_under_a_parallel_rule_the_number_of_tokens_is_left_to_the_rule():
    params = GenerationParams(gen_length=4, confidence_threshold=0.9)
    (block,) = plan_blocks(np.ones(4, dtype=bool), params, (4,))
    assert Schedule([block], np.ones(4, dtype=bool)).num_transfers is None
