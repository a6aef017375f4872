"""Completions over HTTP: the golden vectors, and the settings that come back."""

import random
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from llada_core import GenerationParams, generate
from llada_core.sampling.params import PRESETS
from tests.conftest import GOLDEN_CASES
from tests.llada_core.sampling.test_cache import CACHE_CASES
from tests.llada_core.sampling.test_golden import rows_of
from tests.server.conftest import serving


def recorded_requests(model_name):
    """The body and recorded tokens of every golden run, including Fast-dLLM's with caches and thresholds."""
    for case in GOLDEN_CASES["generate"]:
        if case["model"] == model_name:
            params = {name: value for name, value in case["params"].items() if name != "gen_length"}
            for row, prompt in rows_of(case):
                body = {"prompt": prompt, "max_tokens": case["params"]["gen_length"], **params}
                yield body, case["output_ids"][row]
    for case in CACHE_CASES:
        if case["model"] == model_name:
            body = {"max_tokens": case["gen_length"], "prompt": case["prompt_ids"]}
            body |= {name: case[name] for name in ("cache", "block_length", "confidence_threshold")}
            yield body | ({} if case["confidence_threshold"] else {"steps": case["steps"]}), case["output_ids"]


@pytest.mark.parametrize("model_name", ["tiny-mha", "tiny-gqa"])
@pytest.mark.parametrize("model_threads", [1, 2])
def test_all_golden_cases_at_once_in_random_order_give_the_recorded_tokens(golden_models, model_name, model_threads):
    requests = list(recorded_requests(model_name))
    random.Random(0).shuffle(requests)
    settings = {"max_batch_size": 16, "max_batch_tokens": 512, "model_threads": model_threads}
    with (
        serving(golden_models[model_name], **settings) as url,
        httpx.Client(base_url=url, timeout=120) as client,
        ThreadPoolExecutor(len(requests)) as pool,
    ):
        asked = {"return_token_ids": True, "ignore_eos": True}
        answers = list(
            pool.map(lambda request: client.post("/v1/completions", json=request[0] | asked).json(), requests)
        )
    assert len(answers) >= 95
    assert [answer["choices"][0]["token_ids"] for answer in answers] == [expected for _, expected in requests]


def test_a_mixed_load_equals_the_offline_results(tiny, tiny_client):
    settings = [
        {"max_tokens": 24, "steps": 12, "block_length": 8},
        {"max_tokens": 16, "temperature": 0.9, "seed": 11},
        {"max_tokens": 9, "cfg_scale": 1.2, "remasking": "random", "seed": 12},
        {"max_tokens": 30, "method": "semi_autoregressive_origin", "block_length": 7, "top_p": 0.8, "temperature": 1.1},
        {"max_tokens": 12, "method": "fixed_length", "remasking": "entropy", "logits_eos_inf": True},
        {"max_tokens": 18, "cache": "dual", "block_length": 6, "confidence_threshold": 0.03, "cfg_scale": 0.7},
        {"max_tokens": 18, "cache": "prefix", "cache_refresh_interval": 3, "entropy_bound": 4.0},
    ]
    bodies = [{"prompt": [i + 1, 2 * i + 1], "seed": i, "ignore_eos": True, **settings[i % 7]} for i in range(21)]
    with ThreadPoolExecutor(21) as pool:
        ask = lambda body: tiny_client.post("/v1/completions", json={**body, "return_token_ids": True}).json()  # noqa: E731
        answers = list(pool.map(ask, bodies))
    for body, answer in zip(bodies, answers, strict=True):
        params = {name: value for name, value in body.items() if name not in ("prompt", "max_tokens")}
        expected = generate(tiny, [body["prompt"]], GenerationParams(gen_length=body["max_tokens"], **params))[0]
        assert answer["choices"][0]["token_ids"] == expected.token_ids
        assert answer["usage"]["forward_passes"] == expected.forward_passes


def test_whole_numbers_may_be_written_with_a_point(tiny_client):
    body = {"prompt": [1.0, 2], "max_tokens": 4.0, "steps": 2e0, "stop_token_ids": [5.0], "temperature": 0}
    answer = tiny_client.post("/v1/completions", json=body)
    assert answer.json()["generation_params"]["steps"] == 2
    assert tiny_client.post("/v1/completions", json={**body, "steps": 2.5}).json()["error"]["param"] == "steps"


def test_json_is_accepted_without_a_content_type(tiny_client):
    response = tiny_client.post("/v1/completions", content='{"prompt": [1], "max_tokens": 2}')
    assert response.status_code == 200


def test_neutral_values_of_unsupported_fields_are_accepted(tiny_client):
    neutral = {
        "n": 1,
        "best_of": 1,
        "presence_penalty": 0.0,
        "stop": None,
        "logit_bias": {},
        "tools": [],
        "echo": False,
    }
    assert tiny_client.post("/v1/completions", json={"prompt": [1], "max_tokens": 2, **neutral}).status_code == 200


def test_a_seed_is_drawn_and_returned_and_gives_the_same_tokens_again(tiny_client):
    body = {"prompt": [1], "max_tokens": 12, "temperature": 1.5, "return_token_ids": True, "ignore_eos": True}
    first = tiny_client.post("/v1/completions", json=body).json()
    second = tiny_client.post("/v1/completions", json=body).json()
    again = tiny_client.post("/v1/completions", json={**body, "seed": first["generation_params"]["seed"]}).json()
    assert first["choices"] != second["choices"]
    assert first["choices"] == again["choices"]


def test_settings_come_back_with_their_defaults_resolved(tiny_client):
    answer = tiny_client.post("/v1/completions", json={"prompt": [1], "max_tokens": 20}).json()
    params = answer["generation_params"]
    assert (params["max_tokens"], params["steps"], params["block_length"]) == (20, 20, 20)
    assert (params["method"], params["remasking"]) == ("semi_autoregressive_padding", "low_confidence")


def test_the_default_length_is_128_or_the_room_that_is_left(tiny_client):
    for prompt_length, length in ((1, 128), (200, 56)):
        answer = tiny_client.post("/v1/completions", json={"prompt": [1] * prompt_length, "steps": 8}).json()
        assert answer["generation_params"]["max_tokens"] == length


def test_a_preset_comes_back_as_the_settings_it_stands_for(tiny_client):
    body = {"prompt": [1, 2], "max_tokens": 8, "ignore_eos": True}
    fast = tiny_client.post("/v1/completions", json={**body, "preset": "fast"}).json()
    assert fast["generation_params"].items() >= dict(PRESETS["fast"]).items()
    assert fast["generation_params"]["steps"] is None
    with_steps = tiny_client.post("/v1/completions", json={**body, "preset": "fast", "steps": 4}).json()
    assert (with_steps["generation_params"]["steps"], with_steps["generation_params"]["entropy_bound"]) == (4, None)
    assert with_steps["generation_params"]["cache"] == PRESETS["fast"]["cache"]
