"""Caches of a model that predicts a token from the output at the position before it."""

import numpy as np
import pytest
import torch

from llada_core import GenerationParams, load_model
from llada_core.model.kv_cache import KVCache
from llada_core.model.packed import PackedTokens, Rows
from llada_core.sampling.cache_policy import CACHE_POLICIES
from llada_core.sampling.events import Reporting
from llada_core.sampling.generate import finish
from llada_core.sampling.prepare import Gap, Vocabulary, prepare_infilling, prepare_response
from llada_core.sampling.sampler import Sampler
from tests.llada_core.model.architectures.test_family import FAMILY, network_of

# `exact` is that of block-causal models: test_block_causal.py.
CACHES = [name for name in CACHE_POLICIES if name not in ("none", "exact")]
SETTINGS = [
    {"steps": 9},
    {"temperature": 1.0, "cfg_scale": 0.5, "remasking": "entropy"},
    {"schedule": "uniform", "method": "append"},
    {"entropy_threshold": 4.0, "active_blocks": 2, "suffix_window": 3},
]


@pytest.fixture(params=["network", "cpu"], scope="module")
def dream(request):
    return (
        network_of("dream", "tiny-mha")
        if request.param == "network"
        else load_model(FAMILY / "dream" / "models" / "tiny-mha")
    )


def responses(model, **settings):
    base = {"gen_length": 12, "block_length": 4, "ignore_eos": True}
    return [
        prepare_response(
            list(range(5, 8 + 3 * number)), GenerationParams(**{**base, **setting, **settings}), Vocabulary.of(model)
        )
        for number, setting in enumerate(SETTINGS)
    ]


@pytest.mark.parametrize("cache", CACHES)
def test_a_cache_refreshed_at_every_step_is_no_cache(dream, cache):
    plain, refreshed = responses(dream), responses(dream, cache=cache, cache_refresh_interval=1)
    finish(dream, plain + refreshed)
    assert [canvas.response for canvas in refreshed] == [canvas.response for canvas in plain]


@pytest.mark.parametrize("cache", CACHES)
def test_rows_of_a_batch_and_released_caches_change_nothing(dream, cache):
    together, alone = responses(dream, cache=cache), responses(dream, cache=cache)
    finish(dream, together)
    sampler = Sampler(dream)
    for canvas in alone:
        while canvas.finish_reason is None:
            canvas.caches = None
            sampler.step([canvas])
    assert [canvas.response for canvas in alone] == [canvas.response for canvas in together]


@pytest.mark.parametrize("cache", CACHES)
@torch.inference_mode()
def test_a_window_over_unchanged_tokens_predicts_what_the_whole_canvas_does(dream, cache):
    params = GenerationParams(gen_length=8, block_length=4, cache=cache, ignore_eos=True)
    canvas = prepare_response([5, 6, 7], params, Vocabulary.of(dream))
    Sampler(dream).step([canvas])
    tokens, window = torch.from_numpy(canvas.tokens), canvas.window
    masked = 3 + canvas.proposal_positions()
    assert np.isin(masked, window).all() and np.isin(masked - 1, window).all() and len(window) < len(tokens)
    kv = KVCache(dream.shape, len(tokens), dtype=torch.float32, device=torch.device("cpu"))
    whole = PackedTokens(tokens, (len(tokens),), None, (kv,))
    expected = dream.hidden_states(whole, Rows.of(whole, [masked]))
    narrow = PackedTokens(tokens[torch.from_numpy(window)], (len(window),), (window,), (kv,))
    rows = Rows.of(narrow, [np.searchsorted(window, masked)])
    torch.testing.assert_close(dream.hidden_states(narrow, rows), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("cache", CACHES)
def test_the_first_position_of_a_canvas_and_reported_guesses_are_predicted_too(dream, cache):
    params = GenerationParams(block_length=4, cache=cache)
    reporting = Reporting(include_predictions=True)
    canvas = prepare_infilling([Gap(3), [9, 8], Gap(4)], params, Vocabulary.of(dream), reporting=reporting)
    while canvas.finish_reason is None:
        (event,) = Sampler(dream).step([canvas])
        assert len(event.predictions) == event.masked
    assert canvas.num_masked == 0
