"""Sampling with block-causal models beyond the published cases: defaults, refusals, events, any mix of settings."""

import re
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llada_core import GenerationParams, generate
from llada_core.errors import InvalidParameterError, NonFiniteLogitsError
from llada_core.sampling.constraints.compile import compile_constraint
from llada_core.sampling.events import Reporting
from llada_core.sampling.fork import Edits, frame_at, prepare_fork
from llada_core.sampling.params import PRESETS
from llada_core.sampling.prepare import Gap, Vocabulary, prepare_infilling, prepare_response
from llada_core.sampling.sampler import Sampler
from tests.random_cases import cases
from tests.vocabularies import tokenizer_from

PROMPT = [10, 20, 30, 40, 50, 60]
PLAIN = Reporting()
EDITING = {"confidence_threshold": 0.4, "editing_threshold": 0.2, "max_post_steps": 3}


def canvas_of(model, prompt=PROMPT, *, reporting=PLAIN, **fields):
    return prepare_response(prompt, GenerationParams(**fields), Vocabulary.of(model), reporting=reporting)


def steps_of(model, canvas):
    sampler, steps = Sampler(model), []
    while canvas.finish_reason is None:
        steps += sampler.step([canvas])
    return steps


def test_defaults_are_those_of_the_published_samplers(sdar, llada2):
    params = canvas_of(llada2).params
    assert (params.confidence_threshold, params.steps_per_block, params.block_length) == (0.95, 32, 32)
    assert (params.steps, params.editing_threshold, params.max_post_steps) == (None, None, None)
    params = canvas_of(sdar, gen_length=5).params
    assert (params.confidence_threshold, params.steps_per_block, params.block_length) == (0.85, None, 8)
    params = canvas_of(llada2, editing_threshold=0.0).params
    assert (params.confidence_threshold, params.steps_per_block) == (0.95, None)
    assert (params.max_post_steps, params.min_transfer) == (16, 1)


@pytest.mark.parametrize(
    "named", [{"steps": 9}, {"steps_per_block": 3}, {"entropy_threshold": 0.1}, {"remasking": "random"}]
)
def test_a_request_that_says_how_many_tokens_a_step_commits_has_no_default_threshold(llada2, named):
    assert canvas_of(llada2, **named).params.confidence_threshold is None


@pytest.mark.parametrize(
    ("field", "value", "beside"),
    [
        ("suffix_window", 4, {}),
        ("method", "fixed_length", {}),
    ],
)
def test_a_setting_that_block_causal_models_do_not_know_is_refused_by_field_and_model(sdar, field, value, beside):
    with pytest.raises(InvalidParameterError, match=rf"{field} is .*SDAR attends block by block") as caught:
        canvas_of(sdar, **{field: value}, **beside)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("min_transfer", {"min_transfer": 2, "confidence_threshold": 0.5}),
        ("editing_threshold", {"editing_threshold": 0.0, "confidence_threshold": 0.5}),
        ("eos_early_stop", {"eos_early_stop": True}),
        ("steps_per_block", {"steps_per_block": 2, "confidence_threshold": 0.5}),
    ],
)
def test_a_setting_of_block_causal_models_is_refused_by_field_and_model_on_others(tiny, field, fields):
    with pytest.raises(InvalidParameterError, match=rf"{field} is .* of LLaDA ") as caught:
        canvas_of(tiny, **fields)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("editing_threshold", {"editing_threshold": 1.5}),
        ("max_post_steps", {"max_post_steps": 3}),
        ("max_post_steps", {"editing_threshold": 0.5, "max_post_steps": 5000}),
        ("steps", {"editing_threshold": 0.5, "steps": 4}),
        ("steps_per_block", {"editing_threshold": 0.5, "steps_per_block": 4}),
        ("active_blocks", {**EDITING, "active_blocks": 2}),
        ("min_transfer", {"min_transfer": 0, "confidence_threshold": 0.5}),
        ("min_transfer", {"min_transfer": 2, "steps_per_block": 4}),
    ],
)
def test_settings_that_exclude_each_other_are_refused(field, fields):
    with pytest.raises(InvalidParameterError, match=f"^{field} is"):
        GenerationParams(**fields)


def test_only_the_exact_cache_exists_and_only_for_block_causal_models(sdar, tiny):
    with pytest.raises(InvalidParameterError, match="cache is 'dual'; it must be none or exact: SDAR attends"):
        canvas_of(sdar, cache="dual")
    with pytest.raises(InvalidParameterError, match="cache is 'exact'; it must be another: LLaDA sees later"):
        canvas_of(tiny, cache="exact")
    with pytest.raises(
        InvalidParameterError, match="cache_refresh_interval is 2; it must be absent beside cache exact"
    ):
        GenerationParams(cache="exact", cache_refresh_interval=2)


def test_what_needs_positions_right_of_a_block_is_refused(sdar):
    vocabulary, params = Vocabulary.of(sdar), GenerationParams(gen_length=8)
    with pytest.raises(InvalidParameterError, match="positions see all others for a suffix"):
        prepare_response(PROMPT, params, vocabulary, suffix=[5])
    with pytest.raises(InvalidParameterError, match="positions see all others for an infilling canvas"):
        prepare_infilling([PROMPT, Gap(3)], params, vocabulary)


def test_blocks_are_counted_from_the_first_token_of_the_prompt(sdar):
    canvas = canvas_of(sdar, gen_length=11, block_length=8, steps_per_block=8, ignore_eos=True)
    steps = steps_of(sdar, canvas)
    assert [(block.index, block.start, block.stop) for block in canvas.start.blocks] == [
        (0, 0, 2),
        (1, 2, 10),
        (2, 10, 18),
    ]
    assert sorted({step.block for step in steps}) == [0, 1, 2]
    # The response ends where it was asked to, and its last block is denoised as a whole.
    assert len(canvas.response) == len(canvas.text_ids) == 11
    assert canvas.num_masked == 0 and steps[-1].masked == 0
    assert all(change.position < 11 for step in steps for change in step.changes)
    assert sum(len(step.overhang) for step in steps) == 7


def test_a_block_does_not_reach_beyond_the_positions_of_the_model(sdar):
    longest = sdar.shape.max_sequence_length
    canvas = canvas_of(sdar, prompt=[1] * (longest - 3), gen_length=3, block_length=100)
    assert len(canvas.tokens) == longest
    steps_of(sdar, canvas)
    assert canvas.finish_reason is not None


mixes = st.fixed_dictionaries(
    {"gen_length": st.integers(1, 24), "seed": st.integers(0, 9)},
    optional={
        "block_length": st.sampled_from([1, 4, 5, 16]),
        "cache": st.just("exact"),
        "temperature": st.sampled_from([0.0, 0.7]),
        "cfg_scale": st.just(1.0),
        "remasking": st.sampled_from(["low_confidence", "random", "margin", "sequential"]),
        "steps": st.integers(8, 20),
        "steps_per_block": st.integers(1, 6),
        "confidence_threshold": st.sampled_from([0.3, 0.9]),
        "entropy_bound": st.just(2.0),
        "min_transfer": st.integers(1, 3),
        "editing_threshold": st.sampled_from([0.0, 0.3]),
        "max_post_steps": st.integers(0, 3),
        "active_blocks": st.integers(1, 3),
        "eos_early_stop": st.booleans(),
        "ignore_eos": st.booleans(),
        "min_tokens": st.just(1),
    },
)  # fmt: skip


def valid(model, prompt, fields):
    try:
        return canvas_of(model, prompt, **fields)
    except InvalidParameterError:
        return None


@settings(max_examples=cases(25), deadline=None)
@given(requests=st.lists(st.tuples(st.integers(1, 20), mixes), min_size=1, max_size=5), on_sdar=st.booleans())
def test_mixed_batches_equal_one_by_one_and_events_tell_the_truth(sdar, llada2, requests, on_sdar):
    model = sdar if on_sdar else llada2
    requests = [(list(range(20, 20 + length)), fields) for length, fields in requests]
    requests = [request for request in requests if valid(model, *request)]
    canvases = [canvas_of(model, *request[:1], **request[1]) for request in requests]
    shown = [canvas.response for canvas in canvases]
    final = [[] for _ in canvases]
    sampler = Sampler(model)
    while open_ := [number for number, canvas in enumerate(canvases) if canvas.finish_reason is None]:
        for number, step in zip(open_, sampler.step([canvases[number] for number in open_]), strict=True):
            mask_id = canvases[number].layout.mask_id
            for change in step.changes:
                assert (shown[number][change.position] == mask_id) == (change.op == "commit")
                shown[number][change.position] = change.token_id
            # A token that was once called final stays.
            assert shown[number][: len(final[number])] == final[number]
            assert step.final_length >= len(final[number])
            final[number] = shown[number][: step.final_length]
            assert mask_id not in final[number]
            assert step.masked == shown[number].count(mask_id)
    for (prompt, fields), canvas, response in zip(requests, canvases, shown, strict=True):
        alone = canvas_of(model, prompt, **fields)
        steps_of(model, alone)
        assert canvas.response == alone.response == response
        assert canvas.text_ids == alone.text_ids
        assert canvas.finish_reason == alone.finish_reason
        assert canvas.text_ids == response[: len(canvas.text_ids)]


@pytest.mark.parametrize("step", [1, 4, 9])
@pytest.mark.parametrize(
    "fields",
    [EDITING, {"steps_per_block": 4, "confidence_threshold": 0.9}, {**EDITING, "cache": "exact"}],
)
def test_a_fork_without_changes_gives_the_rest_of_its_parent(llada2, fields, step):
    parent = canvas_of(llada2, gen_length=21, block_length=8, ignore_eos=True, **fields)
    steps = steps_of(llada2, parent)
    changes = [change for done in steps for change in (*done.changes, *done.overhang)]
    frame = frame_at(parent, changes, step)
    fork = prepare_fork(parent, frame, parent.params.altered(), Vocabulary.of(llada2), reporting=PLAIN)
    for ours, theirs in zip(steps_of(llada2, fork), steps[step:], strict=True):
        assert [replace(change, confidence=0) for change in ours.changes] == [
            replace(change, confidence=0) for change in theirs.changes
        ]
        assert (ours.step, ours.block, ours.final_length) == (theirs.step, theirs.block, theirs.final_length)
    assert fork.response == parent.response


def test_a_cached_step_computes_the_active_block_only_and_each_finished_block_once(sdar):
    canvas = canvas_of(sdar, prompt=PROMPT * 3, gen_length=30, block_length=8, steps_per_block=8, cache="exact")
    sampler, windows, written = Sampler(sdar), [], []
    while canvas.finish_reason is None:
        windows.append(canvas.window.tolist())
        written += [restoration.window.tolist() for restoration in canvas.restorations()]
        sampler.step([canvas])
    # The prompt ends in the third block.
    starts = [16] * 6 + [24] * 8 + [32] * 8 + [40] * 8
    assert windows == [list(range(start, start + 8)) for start in starts]
    assert written == [list(range(16)), list(range(16, 24)), list(range(24, 32)), list(range(32, 40))]


@pytest.mark.parametrize("cfg_scale", [0.0, 1.0])
def test_released_caches_are_filled_again(sdar, cfg_scale):
    fields = {"gen_length": 30, "block_length": 8, "steps_per_block": 4, "cache": "exact", "cfg_scale": cfg_scale}
    whole, released = canvas_of(sdar, **fields), canvas_of(sdar, **fields)
    steps_of(sdar, whole)
    sampler, cache_passes = Sampler(sdar), []
    while released.finish_reason is None:
        cache_passes += [step.cache_passes for step in sampler.step([released])]
        if released.step == 10:
            released.caches = None
    assert released.response == whole.response
    passes = 2 if cfg_scale else 1
    assert [count for count in cache_passes if count] == [passes] * 5
    assert cache_passes[10] == passes


def test_a_failed_step_changes_nothing(sdar, monkeypatch):
    fields = {"gen_length": 20, "block_length": 8, "steps_per_block": 4, "cache": "exact"}
    whole, broken = canvas_of(sdar, **fields), canvas_of(sdar, **fields)
    steps_of(sdar, whole)
    sampler = Sampler(sdar)
    while broken.finish_reason is None:
        with monkeypatch.context() as patch, pytest.raises(NonFiniteLogitsError):
            patch.setattr(sdar, "head", lambda hidden: torch.full((len(hidden), 160), torch.nan))
            sampler.step([broken])
        sampler.step([broken])
    assert broken.response == whole.response


def test_by_default_generation_is_cached_and_says_what_that_took(llada2, tiny):
    (result,) = generate(llada2, [PROMPT * 3], max_tokens=20, block_length=8, confidence_threshold=0.5)
    assert result.cache_passes == 3
    (uncached,) = generate(llada2, [PROMPT * 3], max_tokens=20, block_length=8, confidence_threshold=0.5, cache="none")
    assert uncached.cache_passes == 0
    assert replace(result, cache_passes=0) == uncached
    assert generate(tiny, [PROMPT], max_tokens=2)[0].cache_passes == 0


@pytest.mark.parametrize("preset", ["exact", "balanced", "fast"])
def test_presets_have_their_rule_and_the_exact_cache(sdar, preset):
    params = GenerationParams.with_preset(preset, defaults=sdar.shape.sampler.defaults, gen_length=9)
    canvas = prepare_response(PROMPT, params, Vocabulary.of(sdar))
    assert (canvas.params.cache, canvas.params.suffix_window) == ("exact", None)
    assert canvas.params.entropy_threshold == PRESETS[preset].get("entropy_threshold")
    steps_of(sdar, canvas)
    assert canvas.params.altered("fast").cache == "exact"


def test_a_fork_that_masks_tokens_again_fills_them(llada2):
    parent = canvas_of(llada2, gen_length=21, block_length=8, ignore_eos=True, **EDITING)
    steps = steps_of(llada2, parent)
    changes = [change for done in steps for change in (*done.changes, *done.overhang)]
    frame, vocabulary = frame_at(parent, changes, len(steps)), Vocabulary.of(llada2)
    edits = Edits(remask=[3, 20])
    fork = prepare_fork(parent, frame, parent.params.altered(), vocabulary, edits=edits, reporting=PLAIN)
    steps_of(llada2, fork)
    assert fork.num_masked == 0


def test_predictions_are_those_of_the_active_blocks_masks_in_the_response(sdar):
    # The first block has two masks, of which one lies right of the response.
    canvas = canvas_of(sdar, gen_length=1, steps_per_block=8, reporting=Reporting(include_predictions=True))
    for step in steps_of(sdar, canvas):
        assert [prediction.position for prediction in step.predictions] == list(range(step.masked))


@pytest.mark.parametrize("prompt", [PROMPT, PROMPT * 2])
@pytest.mark.parametrize("fields", [{"steps_per_block": 8}, {"confidence_threshold": 0.02, "min_transfer": 2}])
@pytest.mark.parametrize("cache", ["none", "exact"])
def test_a_constrained_answer_matches_and_ends_with_its_last_block(sdar, prompt, fields, cache):
    tokenizer = tokenizer_from([bytes([byte]) for byte in range(155)])
    vocabulary = Vocabulary(sdar.shape, sdar.special_tokens, tokenizer)
    constraint = compile_constraint(r"(yes|no)[a-z]{3,20}", vocabulary)
    params = GenerationParams(gen_length=13, block_length=4, cache=cache, **fields)
    canvas = prepare_response(prompt, params, vocabulary, constraint=constraint)
    steps_of(sdar, canvas)
    assert len(canvas.tokens) == len(prompt) + 13
    assert re.fullmatch(r"(yes|no)[a-z]{3,20}", tokenizer.decode(canvas.text_ids))
    with pytest.raises(InvalidParameterError, match=r"editing_threshold is 0\.0; it must be absent where"):
        prepare_response(
            prompt, replace(params, steps_per_block=None, editing_threshold=0.0), vocabulary, constraint=constraint
        )
