"""A block-causal model behind the server: what its sampler adds to the API, and what it does not know."""

import httpx
import pytest
import torch

from llada_core import load_model
from llada_core.diffusion.likelihood import AnswerScorer, log_likelihood
from llada_core.model.kv_cache import KVCache
from tests.conftest import GOLDEN
from tests.server.conftest import events_of, gauge, serving, until
from tests.vocabularies import tokenizer_from

PROMPT = [10, 20, 30, 40, 50]
BASE = {"prompt": PROMPT, "max_tokens": 21, "block_length": 8, "ignore_eos": True}
EDITING = {"confidence_threshold": 0.4, "editing_threshold": 0.2, "max_post_steps": 3}
ENDING = {"logit_bias": {"156": 30}, "ignore_eos": False}


@pytest.fixture(scope="module")
def llada2():
    return load_model(GOLDEN / "family" / "llada2_moe" / "models" / "tiny-mini-like")


@pytest.fixture(scope="module")
def client(llada2):
    tokenizer = tokenizer_from([bytes([byte]) for byte in range(150)])
    with serving(llada2, tokenizer) as url, httpx.Client(base_url=url, timeout=60) as client:
        yield client


def ids_of(client, **fields):
    answer = client.post("/v1/completions", json={**BASE, **fields, "return_token_ids": True})
    assert answer.status_code == 200, answer.text
    return answer.json()["choices"][0]["token_ids"], answer.json()


def test_edits_are_events_whose_replay_gives_the_answer(client):
    events = events_of(client.post("/v1/denoise", json={**BASE, **EDITING}))
    canvas, done = list(events[0][1]["token_ids"]), events[-1][1]
    assert len(canvas) == 21
    assert events[0][1]["steps"] is None
    changes = [change for _, step in events[1:-1] for change in step["changes"]]
    assert {change["op"] for change in changes} == {"commit", "edit"}
    for change in changes:
        canvas[change["position"]] = change["token_id"]
    assert canvas == done["token_ids"] == ids_of(client, **EDITING)[0]
    assert {step["block"] for _, step in events[1:-1]} == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("field", "value", "beside"),
    [
        ("editing_threshold", 0.0, EDITING),
        ("max_post_steps", 0, EDITING),
        ("min_transfer", 4, {"confidence_threshold": 0.9}),
        ("steps_per_block", 2, {"confidence_threshold": 0.9}),
        ("eos_early_stop", True, {**ENDING, "remasking": "sequential", "steps_per_block": 8}),
        ("remasking", "sequential", {"steps_per_block": 8}),
    ],
)
def test_a_field_of_block_causal_models_has_an_effect(client, field, value, beside):
    (without, plain), (with_it, changed) = ids_of(client, **beside), ids_of(client, **{**beside, field: value})
    assert (without, plain["usage"]) != (with_it, changed["usage"])


def test_the_cache_is_exact_and_its_passes_are_counted(client):
    (cached, with_it), (uncached, without) = ids_of(client, **EDITING), ids_of(client, **EDITING, cache="none")
    assert cached == uncached
    assert with_it["usage"].pop("cache_passes") == 3 and without["usage"].pop("cache_passes") == 0
    assert with_it["usage"] == without["usage"]
    assert ids_of(client, **EDITING, preset="fast")[1]["generation_params"]["cache"] == "exact"
    together = client.post("/v1/completions", json={**BASE, **EDITING, "prompt": [PROMPT, PROMPT * 2]}).json()
    assert together["usage"]["cache_passes"] == 3 + 3


def test_published_defaults_come_back(client):
    answer = client.post("/v1/completions", json={"prompt": PROMPT, "max_tokens": 3}).json()
    params = answer["generation_params"]
    assert (params["confidence_threshold"], params["steps_per_block"], params["block_length"]) == (0.95, 32, 32)
    assert (params["cache"], params["suffix_window"]) == ("exact", None)


@pytest.mark.parametrize("field", [{"editing_threshold": 0}, {"min_transfer": 2}])
def test_editing_and_a_floor_take_the_published_threshold_in_sequence_too(client, field):
    _, answer = ids_of(client, remasking="sequential", **field)
    assert answer["generation_params"]["confidence_threshold"] == 0.95


@pytest.mark.parametrize("length", [257, 2**63, 10**30])
def test_the_last_block_is_denoised_as_a_whole_so_its_length_is_bounded(client, length):
    error = client.post("/v1/completions", json={**BASE, "block_length": length}).json()["error"]
    assert error["param"] == "block_length" and "at most 256: LLaDA2 denoises" in error["message"]


@pytest.mark.parametrize("fields", [{"suffix_window": 3}, {"method": "fixed_length"}, {"cache": "dual"}])
def test_a_field_that_does_not_apply_is_refused_with_the_models_name(client, fields):
    error = client.post("/v1/completions", json={**BASE, **fields, "block_length": None}).json()["error"]
    assert error["param"] == next(iter(fields))
    assert "LLaDA2 attends block by block" in error["message"]


@pytest.mark.parametrize(
    ("field", "value"), [("editing_threshold", 0.5), ("eos_early_stop", True), ("min_transfer", 2)]
)
def test_other_models_refuse_the_fields_of_block_causal_ones(tiny_client, field, value):
    body = {"prompt": [1], "max_tokens": 2, "confidence_threshold": 0.5, field: value}
    answer = tiny_client.post("/v1/completions", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == field
    assert "the sampler of LLaDA does not know it" in answer.json()["error"]["message"]


def test_infilling_is_refused_by_the_field_that_asks_for_them(client):
    for route, field, body in (
        ("/v1/denoise", "canvas", {"canvas": [PROMPT, {"mask": 3}]}),
        ("/v1/completions", "suffix", {"prompt": PROMPT, "suffix": "a"}),
    ):
        answer = client.post(route, json=body)
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (400, field), (route, error)
        assert f"{field}: the model attends block by block, as LLaDA2 does" in error["message"]


@pytest.mark.parametrize("cfg_scale", [0.0, 0.5])
def test_a_score_is_the_cores_bound_block_by_block(client, llada2, cfg_scale):
    completion = [*range(60, 100)]
    body = {"prompt": PROMPT, "completion": completion, "mc_num": 6, "seed": 3, "cfg_scale": cfg_scale}
    answer = client.post("/v1/score", json=body).json()
    mask_id = llada2.special_tokens.mask_id
    expected = log_likelihood(llada2, PROMPT, completion, mask_id=mask_id, mc_num=6, cfg_scale=cfg_scale, seed=3)
    assert answer["log_likelihood"] == pytest.approx(expected.value, rel=1e-5)
    assert answer["stderr"] == pytest.approx(expected.stderr, rel=1e-4)
    assert answer["usage"]["forward_passes"] == (12 if cfg_scale else 6)


TURN = list(range(20, 60))
SHARING = {"block_length": 8, "ignore_eos": True, "confidence_threshold": 0.2, "max_tokens": 24}


def second_turn(url, path="/v1/completions", **fields):
    """The usage of a turn that follows another one, and the ids of its answer."""
    with httpx.Client(base_url=url, timeout=60) as client:
        first = client.post("/v1/completions", json={**SHARING, "prompt": TURN, "return_token_ids": True}).json()
        assert first["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
        body = {**SHARING, "prompt": [*TURN, *first["choices"][0]["token_ids"], 7], **fields}
        if path == "/v1/denoise":
            done = events_of(client.post(path, json=body))[-1][1]
            return done["usage"], done["token_ids"]
        second = client.post(path, json={**body, "return_token_ids": True}).json()
        return second["usage"], second["choices"][0]["token_ids"]


def prefix_cache(url):
    """The tokens that were asked for, those that were there, and the bytes that are there now."""
    return tuple(gauge(url, f"llada_prefix_cache_{name}") for name in ("queries_total", "hits_total", "bytes"))


def test_the_context_of_a_score_is_within_the_memory_for_caches_and_in_its_metric(llada2, monkeypatch):
    body = {"prompt": PROMPT * 13, "completion": [7, 8, 9], "mc_num": 2, "seed": 1}
    # 64 positions of whole blocks are before the answer's last one.
    needed = KVCache.num_bytes(llada2.shape, 64, torch.float32)
    seen = []
    with serving(llada2, kv_cache_memory=needed) as url:
        estimates = AnswerScorer.estimates

        def watched(*args, **options):
            seen.append(gauge(url, "llada_kv_cache_bytes"))
            return estimates(*args, **options)

        monkeypatch.setattr(AnswerScorer, "estimates", watched)
        assert httpx.post(f"{url}/v1/score", json=body, timeout=30).status_code == 200
        assert seen == [needed]
        until(lambda: gauge(url, "llada_kv_cache_bytes") == 0)
        longer = httpx.post(f"{url}/v1/score", json={**body, "prompt": PROMPT * 20}).json()["error"]
        assert longer["param"] is None and f"must fit into {needed} (--kv-cache-memory)" in longer["message"]


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/denoise"])
def test_a_second_turn_takes_the_first_one_from_the_pool(llada2, path):
    with serving(llada2) as url:
        usage, ids = second_turn(url, path)
        queries, hits, num_bytes = prefix_cache(url)
        batch_tokens = gauge(url, "llada_step_batch_tokens_sum")
    with serving(llada2, prefix_cache_memory=0) as url:
        without, same_ids = second_turn(url, path)
        assert prefix_cache(url) == (0, 0, 0)
        assert gauge(url, "llada_prefix_cache_limit_bytes") == 0
        assert gauge(url, "llada_step_batch_tokens_sum") == batch_tokens + 56
    # All of the first turn but the answer's last block, which no step needed.
    assert (usage["prompt_tokens_details"], without["prompt_tokens_details"]) == (
        {"cached_tokens": 56},
        {"cached_tokens": 0},
    )
    assert (queries, hits) == (40 + 64, 56) and num_bytes > 0
    assert ids == same_ids
    assert {**usage, "prompt_tokens_details": None} == {**without, "prompt_tokens_details": None}


def test_the_choices_of_a_new_prompt_had_nothing_to_reuse_and_compute_it_once(llada2):
    with serving(llada2) as url:
        body = {**SHARING, "prompt": TURN, "n": 3, "max_tokens": 1}
        first, second = (httpx.post(f"{url}/v1/completions", json=body).json()["usage"] for _ in range(2))
        assert (first["prompt_tokens_details"], first["cache_passes"]) == ({"cached_tokens": 0}, 1)
        assert (second["prompt_tokens_details"], second["cache_passes"]) == ({"cached_tokens": 40}, 0)


def test_a_full_pool_and_clients_that_leave_change_no_token(llada2):
    with serving(llada2) as url:
        _, expected = second_turn(url)
    with serving(llada2, prefix_cache_memory=30_000) as url:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/v1/completions", json={**SHARING, "prompt": TURN, "max_tokens": 400}, timeout=0.3)
        until(lambda: gauge(url, "llada_requests_running") == 0)
        assert 0 < gauge(url, "llada_prefix_cache_bytes") <= 30_000
        assert httpx.post(f"{url}/v1/completions", json={**SHARING, "prompt": list(range(100))}).status_code == 200
        _, ids = second_turn(url)
    assert ids == expected
