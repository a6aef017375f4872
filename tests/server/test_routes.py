"""The HTTP surface: the golden vectors through it, its events, what it tells of itself."""

import json
import random
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from llada_core import GenerationParams, generate
from llada_core.sampling.params import PRESETS
from server.settings import Settings
from tests.conftest import GOLDEN_CASES
from tests.llada_core.sampling.test_cache import CACHE_CASES
from tests.llada_core.sampling.test_golden import rows_of
from tests.server.conftest import serving


def events_of(response: httpx.Response) -> list[tuple[str, dict]]:
    """(name, data) of every event of a stream."""
    found = []
    for block in response.text.replace("\r\n", "\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            found.append((fields.get("event"), json.loads(fields["data"])))
    return found


def recorded_requests(model_name):
    """(body, recorded tokens) of every golden run, Fast-dLLM's with caches and thresholds included."""
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


def test_denoise_events_replay_to_the_final_canvas(tiny_client):
    body = {"prompt": [1, 2, 3], "max_tokens": 20, "steps": 7, "block_length": 8, "ignore_eos": True}
    response = tiny_client.post("/v1/denoise", json=body)
    assert response.headers["content-type"].startswith("text/event-stream")
    events = events_of(response)
    names = [name for name, _ in events]
    assert names == ["start"] + ["step"] * 7 + ["done"]
    start, *steps, done = (data for _, data in events)
    assert (start["prompt_tokens"], start["gen_length"], start["block_length"], start["steps"]) == (3, 20, 8, 7)
    canvas = start["token_ids"]
    assert canvas == [start["mask_token_id"]] * 20
    for number, step in enumerate(steps):
        assert step["step"] == number
        for change in step["changes"]:
            assert change["op"] == "commit" and change["step"] == number
            assert 0 <= change["confidence"] <= 1
            canvas[change["position"]] = change["token_id"]
        assert step["masked"] == canvas.count(start["mask_token_id"])
    assert canvas == done["token_ids"]
    assert done["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 20,
        "total_tokens": 23,
        "denoising_steps": 7,
        "forward_passes": 7,
    }


def test_events_have_increasing_ids(tiny_client):
    text = tiny_client.post("/v1/denoise", json={"prompt": [1], "max_tokens": 4}).text
    ids = [int(line.removeprefix("id: ")) for line in text.splitlines() if line.startswith("id: ")]
    assert ids == list(range(len(ids)))


def test_predictions_are_given_at_every_masked_position(tiny_client):
    body = {"prompt": [1], "max_tokens": 6, "include_predictions": True, "ignore_eos": True}
    for name, data in events_of(tiny_client.post("/v1/denoise", json=body)):
        if name == "step":
            assert len(data["predictions"]) == data["masked"]


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


def test_models_health_readiness_version_and_page(tiny_client):
    item = tiny_client.get("/v1/models").json()["data"][0]
    assert item == tiny_client.get("/v1/models/tiny").json()
    assert (item["id"], item["max_model_len"], item["mask_token_id"], item["vocab_size"]) == ("tiny", 256, 319, 320)
    assert tiny_client.get("/health").status_code == 200
    assert tiny_client.get("/ready").status_code == 200
    assert tiny_client.get("/version").json()["version"]
    assert "<html" in tiny_client.get("/").text
    assert tiny_client.get("/openapi.json").status_code == 200


def test_every_metric_starts_with_llada_and_has_no_colon(tiny_client):
    text = tiny_client.get("/metrics").text
    names = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")}
    assert names and all(name.startswith("llada_") and ":" not in name for name in names)
    assert {"llada_requests_running", "llada_requests_waiting"} <= names


def test_behind_a_proxy_that_strips_a_prefix_page_and_api_work(tiny):
    with serving(tiny, root_path="/llada", api_key=["secret"]) as url, httpx.Client(base_url=url) as client:
        for path in ("/", "/health", "/static/app.js"):
            assert client.get(path).status_code == 200
        assert client.get("/v1/models").status_code == 401
        assert client.get("/v1/models", headers={"Authorization": "Bearer secret"}).status_code == 200
        assert client.get("/openapi.json", headers={"Authorization": "Bearer secret"}).json()["servers"] == [
            {"url": "/llada"}
        ]


def test_an_empty_api_key_is_refused(monkeypatch):
    for keys in ([""], "", "a,,b"):
        with pytest.raises(ValueError, match="empty entry"):
            Settings(api_key=keys)


def test_api_keys_guard_everything_but_page_health_and_metrics(tiny):
    with (
        serving(tiny, api_key=["secret", "other"], cors_origin=["https://a.example"]) as url,
        httpx.Client(base_url=url) as client,
    ):
        for path in ("/", "/health", "/ready", "/metrics"):
            assert client.get(path).status_code == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
            response = client.get("/v1/models", headers=headers)
            assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
            assert response.json()["error"]["code"] == "invalid_api_key"
        for key in ("secret", "other"):
            assert client.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
        preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
        assert client.options("/v1/completions", headers=preflight).status_code == 200


def test_a_preset_comes_back_as_the_settings_it_stands_for(tiny_client):
    body = {"prompt": [1, 2], "max_tokens": 8, "ignore_eos": True}
    fast = tiny_client.post("/v1/completions", json={**body, "preset": "fast"}).json()
    assert fast["generation_params"].items() >= dict(PRESETS["fast"]).items()
    assert fast["generation_params"]["steps"] is None
    own = tiny_client.post("/v1/completions", json={**body, "preset": "fast", "steps": 4}).json()
    assert (own["generation_params"]["steps"], own["generation_params"]["entropy_bound"]) == (4, None)
    assert own["generation_params"]["cache"] == PRESETS["fast"]["cache"]


def test_under_a_parallel_rule_the_number_of_steps_is_open(tiny_client):
    body = {"prompt": [1, 2], "max_tokens": 8, "ignore_eos": True, "confidence_threshold": 0.9}
    start, *steps, done = events_of(tiny_client.post("/v1/denoise", json=body))
    assert start[1]["steps"] is None
    assert done[1]["usage"]["denoising_steps"] == len(steps)
