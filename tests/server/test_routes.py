"""The HTTP surface: the golden vectors through it, its events, its errors."""

import json
import random
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from pydantic import ValidationError

from llada_core import GenerationParams, generate
from llada_core.sampling import PRESETS
from server.schemas import CompletionRequest
from server.settings import Settings
from tests.conftest import GOLDEN_CASES
from tests.llada_core.sampling.test_cache import CACHE_CASES
from tests.llada_core.sampling.test_golden import rows_of
from tests.server.conftest import serving

IMAGE = {"type": "image_url", "image_url": {"url": "x"}}


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


NESTED = []
for _ in range(600):
    NESTED = [NESTED]

COMPLETIONS, CHAT, DENOISE = "/v1/completions", "/v1/chat/completions", "/v1/denoise"


@pytest.mark.parametrize(
    ("route", "body", "param", "message"),
    [
        (COMPLETIONS, {"prompt": [1], "stpes": 4}, "stpes", "stpes is not a field"),
        (COMPLETIONS, {"prompt": [1], "steps": "4"}, "steps", "steps is '4'; it must be a valid integer"),
        (COMPLETIONS, {"prompt": [1], "steps": 0}, "steps", "greater than or equal to 1"),
        (COMPLETIONS, {"prompt": [1], "steps": 1, "max_tokens": 64}, "steps", "at least the number of blocks"),
        (COMPLETIONS, {"prompt": [1], "temperature": -1}, "temperature", "temperature is -1"),
        (COMPLETIONS, {"prompt": [1], "remasking": "high"}, "remasking", "'low_confidence', 'random'"),
        (COMPLETIONS, {"prompt": [1], "stream": 1}, "stream", "valid boolean"),
        (COMPLETIONS, {"prompt": [1] * 200, "max_tokens": 100}, "max_tokens", "200 tokens, and max_tokens is 100"),
        (COMPLETIONS, {"prompt": [1] * 256}, "prompt", "256 tokens"),
        (COMPLETIONS, {"prompt": []}, "prompt", "at least 1"),
        (COMPLETIONS, {"prompt": ""}, "prompt", "prompt is ''; it must not be empty"),
        (COMPLETIONS, {"prompt": "text"}, "prompt", "no tokenizer"),
        (COMPLETIONS, {"prompt": [1, 319]}, "prompt", "mask id"),
        (COMPLETIONS, {"prompt": [320]}, "prompt", "from 0 to 319"),
        (COMPLETIONS, {"prompt": [1.5]}, "prompt", "prompt.0 is 1.5; it must be a valid integer"),
        (COMPLETIONS, {"prompt": "x\ud800"}, "prompt", "lone surrogate at character 1"),
        (CHAT, {"messages": [{"role": "user", "content": "\udfff"}]}, "messages", "messages.0.content is"),
        (COMPLETIONS, {"prompt": {"a": 1}}, "prompt", "it must be a string, a list of strings"),
        (COMPLETIONS, {}, "prompt", "prompt is missing"),
        (COMPLETIONS, {"prompt": [1], "user": "\ud800"}, "user", "lone surrogate"),
        (COMPLETIONS, {"prompt": [1], "metadata": {"a": "\ud800"}}, "metadata", "lone surrogate"),
        (COMPLETIONS, {"prompt": [1], "metadata": NESTED}, "metadata", "metadata is [[["),
        (
            COMPLETIONS,
            {"prompt": [1], "max_completion_tokens": 999},
            "max_completion_tokens",
            "max_completion_tokens is 999",
        ),
        (COMPLETIONS, {"prompt": [1], "constraints": {"0": 5}}, "constraints", "not a field"),
        (DENOISE, {"prompt": [1], "constraints": {"0": 5}}, "constraints", "a string or a list of token ids"),
        (DENOISE, {"prompt": [1], "constraints": {"-1": [5]}}, "constraints", "has the key '-1'"),
        (COMPLETIONS, {"prompt": [1], "<text>": 1}, "<text>", "is not a field"),
        (
            COMPLETIONS,
            {"prompt": [1], "stream_options": {"include_usage": True}},
            "stream_options",
            "unless stream is true",
        ),
        (COMPLETIONS, {"prompt": [1], "n": 0}, "n", "n is 0"),
        (COMPLETIONS, {"prompt": [[1], []]}, "prompt", "at least 1"),
        (COMPLETIONS, {"prompt": ["", "a"]}, "prompt", "must not be empty"),
        (COMPLETIONS, {"prompt": [1], "logit_bias": {"320": 1}}, "logit_bias", "from 0 to 319"),
        (COMPLETIONS, {"prompt": [1], "logit_bias": {"a": 1}}, "logit_bias", "'a'"),
        (COMPLETIONS, {"prompt": [1], "logit_bias": {"1": 101}}, "logit_bias", "less than or equal to 100"),
        (COMPLETIONS, {"prompt": [1], "bogus": None}, "bogus", "bogus is not a field"),
        (COMPLETIONS, {"prompt": [1], "cfg_scale": 1e39}, "cfg_scale", "less than or equal to 1000000"),
        (COMPLETIONS, {"prompt": [1], "stop_token_ids": [99999]}, "stop_token_ids", "from 0 to 319"),
        (COMPLETIONS, {"prompt": [1], "logprobs": 6}, "logprobs", "less than or equal to 5"),
        (
            COMPLETIONS,
            {"prompt": [1], "logprobs": 1, "stream": True, "diffusing": True},
            "logprobs",
            "beside diffusing",
        ),
        (CHAT, {"messages": [{"role": "user", "content": "x"}], "top_logprobs": 2}, "top_logprobs", "unless logprobs"),
        (DENOISE, {"prompt": [1], "logprobs": 1}, "logprobs", "logprobs is 1; it must be False"),
        (DENOISE, {"prompt": [1], "echo": True}, "echo", "echo is True; it must be False"),
        (COMPLETIONS, {"prompt": [1], "n": True}, "n", "n is True; it must be a valid integer"),
        (COMPLETIONS, {"prompt": [1], "temperature": float("nan")}, "temperature", "less than or equal to 1000000"),
        (COMPLETIONS, {"prompt": [2**70]}, "prompt", "from 0 to 319"),
        (CHAT, {"messages": [{"role": "user", "content": "x", "n": 1}]}, "messages", "messages.0.n is not a field"),
        (COMPLETIONS, {"prompt": [1], "best_of": 3}, "best_of", "best_of is 3"),
        (COMPLETIONS, {"prompt": [1], "presence_penalty": 0.5}, "presence_penalty", "presence_penalty is 0.5"),
        (COMPLETIONS, {"prompt": [1], "max_tokens": 4, "gen_length": 4}, "gen_length", "beside max_tokens"),
        (COMPLETIONS, {"prompt": [1], "diffusing": True}, "diffusing", "unless stream"),
        (COMPLETIONS, {"prompt": [1], "method": "fixed_length", "block_length": 8}, "block_length", "one block"),
        (CHAT, {"messages": []}, "messages", "messages is []; it must have at least 1 item"),
        (CHAT, {"messages": [{"role": "robot", "content": "x"}]}, "messages", "messages.0.role is 'robot'"),
        (CHAT, {"messages": [{"role": "user", "content": 3}]}, "messages", "messages.0.content is 3"),
        (CHAT, {"messages": [{"role": "user", "content": "x"}], "tools": [{}]}, "tools", "tools is"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [IMAGE]}]},
            "messages",
            "messages.0.content.0.type is 'image_url'",
        ),
        (CHAT, {"messages": [{"role": "tool", "content": "x"}]}, "messages", "messages.0.role is 'tool'"),
        (CHAT, {"messages": [{"role": "user", "content": "x"}]}, "messages", "no tokenizer"),
        (DENOISE, {"prompt": [1], "messages": [{"role": "user", "content": "x"}]}, "messages", "exactly one"),
        (DENOISE, {}, "prompt", "exactly one"),
        (DENOISE, {"prompt": [1], "stream": False}, "stream", "stream is False"),
        (DENOISE, {"prompt": [1], "n": 2}, "n", "n is 2"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_bad_input_is_a_400_that_names_field_value_and_rule(tiny_client, route, body, param, message):
    response = tiny_client.post(route, content=json.dumps(body))  # json.dumps writes NaN, which httpx would not
    assert response.status_code == 400
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert message in error["message"]


def test_framework_errors_have_the_same_shape(tiny_client):
    for method, path, content, status in (
        ("POST", "/v1/completions", '{"prompt": [1', 400),
        ("POST", "/v1/completions", "[]", 400),
        ("POST", "/v1/completions", "[" * 200_000, 400),
        ("POST", "/v1/completions", b'{"prompt": "\xff"}', 400),
        ("POST", "/v1/completions", "", 400),
        ("GET", "/v1/nothing", None, 404),
        ("POST", "/v1/completions/", "{}", 404),
        ("GET", "/v1/models/other", None, 404),
        ("PUT", "/v1/completions", "{}", 405),
        ("POST", "/v1/completions", json.dumps({"prompt": [1], "model": "other"}), 404),
        ("POST", "/v1/completions", '{"prompt": "' + "x" * 5_000_000 + '"}', 413),
    ):
        response = tiny_client.request(method, path, content=content, headers={"content-type": "application/json"})
        assert response.status_code == status, path
        assert response.json()["error"].keys() == {"message", "type", "param", "code"}
        assert response.headers["x-request-id"]


def test_a_list_of_errors_is_one_error():
    for body in ({"prompt": [[]] * 10_000}, {"prompt": ["a", *[1] * 10_000]}, {"prompt": [1], "stop": [1] * 10_000}):
        with pytest.raises(ValidationError) as caught:
            CompletionRequest.model_validate(body)
        assert caught.value.error_count() == 1


def test_an_error_is_short_whatever_was_sent(tiny_client):
    for body in ({"prompt": [1], "x" * 100_000: 1}, {"prompt": [1], "n": "9" * 100_000}, {"prompt": [1], "n": 10**300}):
        assert len(tiny_client.post(COMPLETIONS, json=body).text) < 500


def test_whole_numbers_may_be_written_with_a_point(tiny_client):
    body = {"prompt": [1.0, 2], "max_tokens": 4.0, "steps": 2e0, "stop_token_ids": [5.0], "temperature": 0}
    answer = tiny_client.post("/v1/completions", json=body)
    assert answer.json()["generation_params"]["steps"] == 2
    assert tiny_client.post("/v1/completions", json={**body, "steps": 2.5}).json()["error"]["param"] == "steps"


def test_a_wrong_method_is_told_the_right_ones(tiny_client):
    answer = tiny_client.put("/v1/completions")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


def test_the_openapi_page_documents_the_one_error_shape_and_no_422(tiny_client):
    page = tiny_client.get("/openapi.json").json()
    for methods in page["paths"].values():
        for operation in methods.values():
            assert "422" not in operation["responses"]
            schema = operation["responses"]["default"]["content"]["application/json"]["schema"]
            assert schema["$ref"].endswith("/ErrorBody")
    assert "HTTPValidationError" not in page["components"]["schemas"]


def test_a_body_that_keeps_coming_is_cut_off_too(tiny_client):
    chunks = (b"x" * 100_000 for _ in range(60))
    response = tiny_client.post("/v1/completions", content=chunks)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")


def test_an_error_does_not_repeat_a_huge_value(tiny_client):
    for body in ({"prompt": [1], "tools": ["x" * 100_000]}, {"prompt": [1], "model": "x" * 100_000}):
        assert len(tiny_client.post("/v1/completions", json=body).text) < 1000


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


def test_errors_of_every_kind_carry_the_cors_header(tiny, monkeypatch):
    with serving(tiny, cors_origin=["https://a.example"]) as url, httpx.Client(base_url=url) as client:
        monkeypatch.setattr("server.state.ServerState.check_model", lambda self, name: 1 / 0)
        for body, status in (({"prompt": [1]}, 500), ({"prompt": []}, 400)):
            response = client.post("/v1/completions", json=body, headers={"Origin": "https://a.example"})
            assert response.status_code == status
            assert response.headers["access-control-allow-origin"] == "https://a.example"
            assert response.headers["x-request-id"]


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


@pytest.mark.parametrize(
    ("fields", "field", "rule"),
    [
        ({"confidence_threshold": 1.5}, "confidence_threshold", "less than or equal to 1"),
        ({"confidence_threshold": 0.9, "steps": 4}, "steps", "must be absent"),
        ({"confidence_threshold": 0.9, "remasking": "random"}, "remasking", "must not be random"),
        ({"confidence_threshold": 0.9, "entropy_bound": 0.1}, "entropy_bound", "must be absent"),
        ({"cache": "huge"}, "cache", "'none', 'prefix' or 'dual'"),
        ({"cache_refresh_interval": 2}, "cache_refresh_interval", "must be absent without a cache"),
        ({"preset": "faster"}, "preset", "'exact', 'balanced' or 'fast'"),
    ],
    ids=str,
)
def test_speed_settings_that_contradict_are_refused_by_name(tiny_client, fields, field, rule):
    answer = tiny_client.post("/v1/completions", json={"prompt": [1], "max_tokens": 4, **fields})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == field
    assert rule in answer.json()["error"]["message"]


def test_a_cache_beyond_the_memory_for_caches_is_refused_with_both_numbers(tiny):
    with serving(tiny, kv_cache_memory=10_000) as url:
        body = {"prompt": [1], "max_tokens": 31, "cache": "dual"}
        refused = httpx.post(f"{url}/v1/completions", json=body).json()["error"]
        assert refused["param"] == "cache"
        # 3 layers, keys and values, 32 positions, width 64, float32.
        assert str(3 * 2 * 32 * 64 * 4) in refused["message"]
        assert "10000" in refused["message"]
        small = httpx.post(f"{url}/v1/completions", json={**body, "max_tokens": 4})
        assert small.status_code == 200
