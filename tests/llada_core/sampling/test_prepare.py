from dataclasses import replace

import pytest

from llada_core.errors import InvalidParameterError
from llada_core.sampling.params import GenerationParams
from llada_core.sampling.prepare import Gap, Vocabulary, prepare_infilling, prepare_response, prepare_responses
from llada_core.sampling.sampler import Sampler

MASK, EOS, EOT = 319, 317, 318


def test_pinned_tokens_that_do_not_fit_are_refused(make):
    for pinned, message in (
        ({3: [1, 2]}, "must lie within gen_length"),
        ({-1: [1]}, "must lie within gen_length"),
        ({0: [1, 2], 1: [3]}, "overlaps"),
        ({0: [MASK]}, "mask id"),
        ({0: [320]}, "ids must be from 0 to 319"),
    ):
        with pytest.raises(InvalidParameterError, match=message):
            make(gen_length=4, pinned=pinned)


def test_prompts_that_cannot_be_denoised_are_refused(make):
    for prompt, message in (([], "at least 1"), ([MASK], "mask id"), ([320], "from 0 to 319"), ([-1], "from 0 to 319")):
        with pytest.raises(InvalidParameterError, match=message):
            make(prompt=prompt)


def test_a_canvas_longer_than_the_models_positions_is_refused_with_both_numbers(make, tiny):
    longest = tiny.shape.max_sequence_length
    with pytest.raises(InvalidParameterError, match=f"{longest + 1} positions; the model has at most {longest}"):
        make(prompt=(1, 2), gen_length=longest - 1)
    with pytest.raises(InvalidParameterError, match=f"{longest + 1} positions"):
        infill(tiny, [[1], Gap(longest)])


def test_responses_prepared_together_share_nothing_that_a_step_changes(tiny):
    params = GenerationParams(gen_length=9, block_length=4, cache="dual", temperature=1.0, ignore_eos=True)
    vocabulary, seeds = Vocabulary.of(tiny), (3, 1, 2)
    together = prepare_responses([1, 2], params, vocabulary, seeds=seeds)
    alone = [prepare_response([1, 2], replace(params, seed=seed), vocabulary) for seed in seeds]
    sampler = Sampler(tiny)
    while together[0].finish_reason is None:
        assert sampler.step(together) == [sampler.step([canvas])[0] for canvas in alone]
    assert len({tuple(canvas.text_ids) for canvas in together}) == 3


def infill(tiny, segments, **params):
    return prepare_infilling(segments, GenerationParams(**params), Vocabulary.of(tiny))


def test_infilling_never_writes_an_end_or_a_mask(tiny):
    canvas = infill(tiny, [[1], Gap(1)])
    assert canvas.layout.banned_ids == (EOS, EOT, MASK)


def test_an_infilling_canvas_needs_a_gap(tiny):
    for segments in ([[1, 2]], []):
        with pytest.raises(InvalidParameterError, match="no gap"):
            infill(tiny, segments)
    with pytest.raises(InvalidParameterError, match="at least 1"):
        infill(tiny, [[1], Gap(0)])


def test_fixed_length_has_one_block(make):
    assert make(gen_length=100, method="fixed_length").params.block_length == 100
    with pytest.raises(InvalidParameterError, match="block_length is 32"):
        GenerationParams(gen_length=100, method="fixed_length", block_length=32)


def test_fewer_steps_than_blocks_are_refused(make):
    with pytest.raises(InvalidParameterError, match=r"steps is 2; it must be at least .* 3"):
        make(gen_length=96, steps=2)
