"""Several active blocks: what must hold at every step, for random canvases and rules."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llada_core import GenerationParams, generate
from llada_core.errors import InvalidParameterError
from llada_core.sampling.prepare import Gap, Vocabulary, prepare_infilling, prepare_response
from llada_core.sampling.sampler import Sampler
from llada_core.sampling.schedule import Schedule, plan_blocks

RULES = st.sampled_from(
    [
        {"entropy_threshold": 0.0},
        {"entropy_threshold": 5.4},
        {"entropy_bound": 8.0, "remasking": "entropy"},
        {"confidence_threshold": 0.02},
        {"confidence_factor": 1.9, "remasking": "margin"},
    ]
)


def steps_of(model, canvas):
    sampler = Sampler(model)
    while canvas.finish_reason is None:
        blocks = canvas.schedule.blocks
        yield canvas.schedule, blocks, sampler.step([canvas])[0]


@settings(max_examples=15, deadline=None)
@given(
    rule=RULES,
    length=st.integers(1, 30),
    block_length=st.integers(1, 9),
    active_blocks=st.integers(1, 5),
    cache=st.sampled_from(["none", "dual", "delayed"]),
    seed=st.integers(0, 9),
    end_ids=st.sampled_from([frozenset(), frozenset(range(0, 300, 4))]),
)
def test_the_leftmost_block_moves_and_nothing_right_of_an_unfinished_end_is_final(
    tiny, rule, length, block_length, active_blocks, cache, seed, end_ids
):
    params = GenerationParams(
        gen_length=length,
        block_length=block_length,
        active_blocks=active_blocks,
        cache=cache,
        temperature=1.0,
        seed=seed,
        stop_token_ids=end_ids,
        **rule,
    )
    canvas = prepare_response([1, 2], params, Vocabulary.of(tiny))
    mask_id, ends = canvas.layout.mask_id, canvas.layout.end_ids
    for _, blocks, event in steps_of(tiny, canvas):
        positions = [change.position for change in event.changes]
        assert any(blocks[0].start <= position < blocks[0].stop for position in positions)
        assert event.block == blocks[0].index
        stop = blocks[:active_blocks][-1].stop
        assert all(position < stop for position in positions)
        final = canvas.response[: event.final_length]
        assert mask_id not in final and not ends.intersection(final)
        assert canvas.text_ids == final
    whole = canvas.response
    assert mask_id not in whole[: len(canvas.text_ids)]


def test_one_active_block_is_the_rule_alone_and_so_are_many_where_there_is_one_block(tiny):
    for rule in ({"entropy_threshold": 5.4}, {"entropy_bound": 8.0}, {"confidence_threshold": 0.02}):
        plain = GenerationParams(gen_length=16, block_length=16, ignore_eos=True, **rule)
        expected = generate(tiny, [[3, 4]], plain)
        many = GenerationParams(gen_length=16, block_length=16, ignore_eos=True, active_blocks=4, **rule)
        assert generate(tiny, [[3, 4]], many) == expected


def test_a_block_joins_at_a_tenth_and_is_filled_up_only_once_the_one_before_nearly_is():
    is_masked = np.ones(60, dtype=bool)
    params = GenerationParams(gen_length=60, block_length=20, confidence_threshold=0.9)
    schedule = Schedule(plan_blocks(is_masked, params, (1, 1, 1)), is_masked, max_active=2)
    visited = []
    for filled in (0, 1, 2, 19, 20):
        is_masked[:filled] = False
        schedule.advance(is_masked)
        visited.append((schedule.active, [block.index for block in schedule.held_back], schedule.is_refresh))
    assert visited == [
        (range(20), [], False),
        (range(20), [], False),
        (range(40), [1], True),
        (range(40), [], False),
        (range(20, 40), [], True),
    ]


def test_a_filled_block_between_active_ones_counts_until_those_left_of_it_are_filled():
    is_masked = np.ones(12, dtype=bool)
    params = GenerationParams(gen_length=12, block_length=4, confidence_threshold=0.9)
    schedule = Schedule(plan_blocks(is_masked, params, (1, 1, 1)), is_masked, max_active=3)
    is_masked[[0, 4, 5, 6, 7]] = False
    schedule.advance(is_masked)
    assert schedule.active == range(12)
    is_masked[:4] = False
    schedule.advance(is_masked)
    assert schedule.active == range(8, 12)


def test_gaps_are_filled_by_several_blocks_too(tiny):
    params = GenerationParams(block_length=3, entropy_threshold=9.0, active_blocks=4)
    canvas = prepare_infilling([[5], Gap(4), [6, 7], Gap(5)], params, Vocabulary.of(tiny))
    list(steps_of(tiny, canvas))
    assert canvas.num_masked == 0 and canvas.response[0] == 5 and canvas.response[5:7] == [6, 7]


@pytest.mark.parametrize("settings", [{}, {"steps": 4}, {"remasking": "random"}], ids=str)
def test_several_active_blocks_need_a_parallel_rule(settings):
    with pytest.raises(InvalidParameterError, match="active_blocks is 2; it must be 1 without a parallel rule"):
        GenerationParams(active_blocks=2, **settings)
