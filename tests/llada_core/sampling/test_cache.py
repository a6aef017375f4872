"""Caches: Fast-dLLM's recorded runs, and what must hold for any approximation."""

import json
from collections import Counter

import numpy as np
import pytest
import torch

from llada_core import GenerationParams, denoise, generate, load_model
from llada_core.model.kv_cache import KVCache
from llada_core.sampling.cache_policy import CACHE_POLICIES
from llada_core.sampling.events import Reporting
from llada_core.sampling.prepare import Vocabulary, prepare_response
from llada_core.sampling.sampler import Sampler
from tests.conftest import GOLDEN

# `exact` is that of block-causal models: test_block_causal.py.
CACHES = [name for name in CACHE_POLICIES if name not in ("none", "exact")]
CACHE_CASES = json.loads((GOLDEN / "cache_cases.json").read_text())


def params_of(case):
    steps = case["steps"] if case["confidence_threshold"] is None else None
    return GenerationParams(
        gen_length=case["gen_length"],
        steps=steps,
        block_length=case["block_length"],
        cache=case["cache"],
        confidence_threshold=case["confidence_threshold"],
        ignore_eos=True,
    )


def canvas_of(model, prompt, params, **options):
    return prepare_response(prompt, params, Vocabulary.of(model), **options)


def run(model, canvases):
    sampler = Sampler(model)
    while open_canvases := [canvas for canvas in canvases if canvas.finish_reason is None]:
        sampler.step(open_canvases)


@pytest.fixture(params=["network", "cpu"])
def models(request, golden_networks, golden_models):
    return {"network": golden_networks, "cpu": golden_models}[request.param]


def num_idle_forwards(case, blocks):
    """Where a block is full after its first forward, Fast-dLLM's loop runs one more over it, which changes nothing."""
    return 0 if case["cache"] == "none" else sum(count == 1 for count in Counter(blocks).values())


@pytest.mark.parametrize("case", CACHE_CASES, ids=lambda case: case["id"])
def test_fast_dllm_is_reproduced_token_for_token_and_forward_for_forward(models, case):
    canvas = canvas_of(models[case["model"]], case["prompt_ids"], params_of(case))
    sampler = Sampler(models[case["model"]])
    blocks = []
    while canvas.finish_reason is None:
        blocks.append(sampler.step([canvas])[0].block)
    assert canvas.response == case["output_ids"]
    assert canvas.forward_passes == case["forward_calls"] - num_idle_forwards(case, blocks)


def test_idle_forwards_are_rare(golden_models):
    """Only idle forwards make the number of forwards differ from the recorded one."""
    differing = []
    for model_name in ("tiny-mha", "tiny-gqa"):
        cases = [case for case in CACHE_CASES if case["model"] == model_name]
        prompts, params = [case["prompt_ids"] for case in cases], [params_of(case) for case in cases]
        results = generate(golden_models[model_name], prompts, params)
        pairs = zip(cases, results, strict=True)
        differing += [case["id"] for case, result in pairs if result.forward_passes != case["forward_calls"]]
    assert differing == ["cache/tiny-mha/23", "cache/tiny-mha/28", "cache/tiny-gqa/58"]


@pytest.mark.parametrize("model_name", ["tiny-mha", "tiny-gqa"])
def test_all_cases_in_one_batch_give_the_same_tokens(models, model_name):
    cases = [case for case in CACHE_CASES if case["model"] == model_name]
    canvases = [canvas_of(models[model_name], case["prompt_ids"], params_of(case)) for case in cases]
    run(models[model_name], canvases)
    assert [canvas.response for canvas in canvases] == [case["output_ids"] for case in cases]


SETTINGS = [
    {"steps": 12},
    {"temperature": 0.9, "seed": 5},
    {"cfg_scale": 1.5},
    {"confidence_threshold": 0.05},
    {"entropy_bound": 3.0, "cfg_scale": 0.5, "remasking": "entropy"},
    {"confidence_factor": 1.5, "method": "semi_autoregressive_origin"},
    {"method": "fixed_length", "block_length": None},
    {"suffix_window": 4},
    {"entropy_threshold": 5.0, "active_blocks": 3, "suffix_window": 2},
]


@pytest.mark.parametrize("model_name", ["tiny-mha", "tiny-gqa"])
def test_a_cache_refreshed_at_every_step_is_no_cache(golden_models, model_name):
    model = golden_models[model_name]
    prompts, uncached, refreshed = [], [], []
    for number, setting in enumerate(SETTINGS):
        for cache in CACHES:
            base = {"gen_length": 24, "block_length": 8, "ignore_eos": True, **setting}
            prompts.append(list(range(5 + number, 12 + 3 * number)))
            uncached.append(GenerationParams(**base))
            refreshed.append(GenerationParams(**base, cache=cache, cache_refresh_interval=1))
    # Every third request stays without a cache: mixed batches, in which each request is as it would be alone.
    pairs = enumerate(zip(uncached, refreshed, strict=True))
    mixed = [cached if number % 3 else plain for number, (plain, cached) in pairs]
    expected = generate(model, prompts, uncached)
    assert generate(model, prompts, mixed) == expected


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("interval", [None, 3])
def test_steps_between_refreshes_see_only_the_window(tiny, monkeypatch, cache, interval):
    lengths = []
    hidden_states = type(tiny).hidden_states
    monkeypatch.setattr(
        type(tiny),
        "hidden_states",
        lambda self, packed, rows: lengths.append(packed.lengths) or hidden_states(self, packed, rows),
    )
    params = GenerationParams(
        gen_length=8, block_length=4, cache=cache, cache_refresh_interval=interval, ignore_eos=True
    )
    list(denoise(tiny, [1, 2, 3], params))
    # `delayed`: all masks and the token committed last.
    narrow = {"prefix": ((8,) * 3, (4,) * 3), "dual": ((4,) * 3,) * 2, "delayed": ((8, 7, 6), (4, 3, 2))}[cache]
    per_block = [(11, *own) if interval is None else (11, *own[:2], 11) for own in narrow]
    assert lengths == [(length,) for block in per_block for length in block]


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("interval", [None, 3])
@pytest.mark.parametrize("method", ["semi_autoregressive_padding", "semi_autoregressive_origin"])
@pytest.mark.parametrize("cfg_scale", [0.0, 1.5])
def test_a_canvas_that_gave_up_its_caches_before_every_step_gives_the_same_tokens(
    tiny, cache, interval, method, cfg_scale
):
    params = GenerationParams(
        gen_length=12,
        block_length=6,
        cache=cache,
        cache_refresh_interval=interval,
        method=method,
        cfg_scale=cfg_scale,
        temperature=1.0,
        ignore_eos=True,
    )
    others = [canvas_of(tiny, [4, 5, 6, 7], params), canvas_of(tiny, [8], params)]
    canvas, expected = canvas_of(tiny, [1, 2, 3], params), canvas_of(tiny, [1, 2, 3], params)
    sampler = Sampler(tiny)
    while canvas.finish_reason is None:
        canvas.caches = None
        others[0].caches = None
        event = sampler.step([others[0], canvas, others[1]])[1]
        assert event == sampler.step([expected])[0]


def test_the_step_that_fills_released_caches_counts_their_tokens(tiny):
    canvas = canvas_of(tiny, [1, 2, 3], GenerationParams(gen_length=8, block_length=8, cache="dual", ignore_eos=True))
    assert canvas.restorations() == [] and len(canvas.window) == 11
    Sampler(tiny).step([canvas])
    assert canvas.restorations() == [] and len(canvas.window) == 8
    canvas.caches = None
    assert [len(again.window) for again in canvas.restorations()] == [11] and len(canvas.window) == 8


def test_a_failed_step_leaves_no_half_filled_cache_behind(tiny, monkeypatch):
    params = GenerationParams(gen_length=8, block_length=8, cache="dual", ignore_eos=True)
    expected = generate(tiny, [[1, 2, 3]], params)[0].token_ids
    canvas = canvas_of(tiny, [1, 2, 3], params)
    with monkeypatch.context() as patch:
        patch.setattr(type(tiny), "head", lambda self, hidden_RE: torch.full((len(hidden_RE), 320), torch.nan))
        with pytest.raises(ArithmeticError):
            Sampler(tiny).step([canvas])
    assert canvas.caches is None
    run(tiny, [canvas])
    assert canvas.response == expected


def test_a_finished_canvas_holds_no_cache(tiny):
    params = GenerationParams(gen_length=8, cache="dual", cfg_scale=1.0)
    canvas = prepare_response([1, 2], params, Vocabulary.of(tiny))
    while canvas.finish_reason is None:
        Sampler(tiny).step([canvas])
    assert canvas.caches is None


def test_predictions_cover_every_mask_in_cached_steps_too(tiny):
    params = GenerationParams(gen_length=12, block_length=4, cache="dual", ignore_eos=True)
    canvas = canvas_of(tiny, [1, 2], params, reporting=Reporting(include_predictions=True))
    sampler = Sampler(tiny)
    while canvas.finish_reason is None:
        event = sampler.step([canvas])[0]
        positions = [prediction.position for prediction in event.predictions]
        assert positions == sorted(positions)
        assert len(positions) == event.masked


def test_the_memory_of_a_cache_is_what_is_said(tiny):
    cache = KVCache(tiny.shape, 10, dtype=torch.float32, device=torch.device("cpu"))
    keys, values = cache.replace(2, slice(4, 7), torch.ones(3, 4, 16), torch.ones(3, 4, 16))
    assert (keys.shape, values.shape) == ((10, 4, 16), (10, 4, 16))
    assert KVCache.num_bytes(tiny.shape, 10, torch.float32) == 3 * 2 * 10 * 64 * 4


def test_masks_beyond_the_suffix_window_are_not_seen_unless_tokens_follow_them(tiny):
    params = GenerationParams(gen_length=20, block_length=4, suffix_window=3, ignore_eos=True)
    assert canvas_of(tiny, [1, 2, 3], params).visible_length == 3 + 4 + 3
    assert canvas_of(tiny, [1, 2, 3], params, pinned={9: [7]}).visible_length == 3 + 10
    assert canvas_of(tiny, [1, 2, 3], params, suffix=[7, 8]).visible_length == 3 + 20 + 2
    assert canvas_of(tiny, [1], GenerationParams(gen_length=6, block_length=4, suffix_window=9)).visible_length == 7


def test_a_suffix_window_over_the_whole_canvas_changes_nothing(tiny):
    params = GenerationParams(gen_length=20, block_length=5, temperature=1.0, ignore_eos=True)
    windowed = GenerationParams(gen_length=20, block_length=5, temperature=1.0, ignore_eos=True, suffix_window=15)
    assert generate(tiny, [[1, 2, 3]], windowed) == generate(tiny, [[1, 2, 3]], params)


def test_delayed_recomputes_masks_and_what_the_last_step_committed(tiny):
    params = GenerationParams(gen_length=8, block_length=8, cache="delayed", entropy_bound=12.0, ignore_eos=True)
    canvas, sampler = canvas_of(tiny, [1, 2, 3], params), Sampler(tiny)
    sampler.step([canvas])
    while canvas.finish_reason is None:
        masked = 3 + (np.array(canvas.response) == canvas.layout.mask_id).nonzero()[0]
        latest = (canvas.commit_steps == canvas.step - 1).nonzero()[0]
        assert canvas.window.tolist() == sorted([*masked, *latest])
        sampler.step([canvas])


def test_restoring_a_delayed_cache_counts_every_step_since_the_refresh(tiny):
    params = GenerationParams(gen_length=8, block_length=8, cache="delayed", ignore_eos=True)
    canvas, sampler = canvas_of(tiny, [1, 2, 3], params), Sampler(tiny)
    for _ in range(4):
        sampler.step([canvas])
    assert canvas.restorations() == []
    canvas.caches = None
    assert [len(again.window) for again in canvas.restorations()] == [11, 8, 7, 6]


@pytest.mark.parametrize("options", [{"dtype": "bfloat16"}, {"quantization": "int8"}, {"dtype": "float16"}], ids=str)
def test_a_set_of_positions_is_cached_in_every_precision(options):
    model = load_model(GOLDEN / "models" / "tiny-gqa", **options)
    params = GenerationParams(gen_length=8, cache="delayed", cfg_scale=1.0, ignore_eos=True)
    assert len(generate(model, [[1, 2, 3]], params)[0].token_ids) == 8
