"""Errors over HTTP: one shape on every route; each names field, value and rule."""

import gzip
import json

import httpx
import pytest
from pydantic import ValidationError

from server.schemas.openai import CompletionRequest
from tests.server.conftest import serving

IMAGE = {"type": "image_url", "image_url": {"url": "x"}}
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
        (COMPLETIONS, {"prompt": [1], "stop\ud800": 1}, "stop\\ud800", "did you mean stop?"),
        (COMPLETIONS, {"prompt": [1], "promp\udc00t": 1}, "promp\\udc00t", "did you mean prompt?"),
        (COMPLETIONS, {"prompt": [1], "tools": ["\ud800"]}, "tools", r"tools is ['\ud800']; it must be"),
        (COMPLETIONS, {"prompt": [1], "best_of": "\ud800"}, "best_of", r"best_of is '\ud800'; it must be"),
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
        (COMPLETIONS, {"prompt": [1], "max_tokens": 4, "gen_length": 5}, "gen_length", "beside max_tokens"),
        (COMPLETIONS, {"prompt": [1], "diffusing": True}, "diffusing", "unless stream"),
        (COMPLETIONS, {"prompt": [1], "method": "fixed_length", "block_length": 8}, "block_length", "one block"),
        (CHAT, {"messages": []}, "messages", "messages is []; it must have at least 1 item"),
        (CHAT, {"messages": [{"role": "robot", "content": "x"}]}, "messages", "messages.0.role is 'robot'"),
        (CHAT, {"messages": [{"role": "user", "content": 3}]}, "messages", "messages.0.content is 3"),
        (CHAT, {"messages": [{"role": "user", "content": "x"}], "tools": [{}]}, "tools", "tools.0.type is missing"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [IMAGE]}]},
            "messages",
            "messages.0.content.0.type is 'image_url'",
        ),
        (CHAT, {"messages": [{"role": "tool", "content": "x"}]}, "messages", "it must have a tool_call_id"),
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


def test_a_wrong_method_gets_the_allowed_ones(tiny_client):
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


def test_errors_of_every_kind_carry_the_cors_header(tiny, monkeypatch):
    with serving(tiny, cors_origin=["https://a.example"]) as url, httpx.Client(base_url=url) as client:
        monkeypatch.setattr("server.service.Service.check_model", lambda self, name: 1 / 0)
        for body, status in (({"prompt": [1]}, 500), ({"prompt": []}, 400)):
            response = client.post("/v1/completions", json=body, headers={"Origin": "https://a.example"})
            assert response.status_code == status
            assert response.headers["access-control-allow-origin"] == "https://a.example"
            assert response.headers["x-request-id"]


@pytest.mark.parametrize(
    ("fields", "field", "rule"),
    [
        ({"confidence_threshold": 1.5}, "confidence_threshold", "less than or equal to 1"),
        ({"confidence_threshold": 0.9, "steps": 4}, "steps", "must be absent"),
        ({"confidence_threshold": 0.9, "remasking": "random"}, "remasking", "must not be random"),
        ({"confidence_threshold": 0.9, "entropy_bound": 0.1}, "entropy_bound", "must be absent"),
        ({"cache": "huge"}, "cache", "'none', 'prefix', 'dual', 'delayed' or 'exact'"),
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


@pytest.mark.parametrize(
    ("content", "headers", "message"),
    [
        (b'{"prompt": "caf\xe9"}', {}, "the body is not UTF-8 text: byte 15 cannot be decoded"),
        (gzip.compress(b'{"prompt": "Hi."}'), {"Content-Encoding": "gzip"}, "compressed with gzip"),
        (b'{"prompt": "Hi.",\n  "max_tokens" 4}', {}, "(line 2, column 16)"),
        (b"prompt=Hi.", {"Content-Type": "application/x-www-form-urlencoded"}, "'application/x-www-form-urlencoded'"),
        (b'{"prompt": "Hi."}', {"Content-Type": "text/plain"}, "-H 'Content-Type: application/json'"),
    ],
    ids=["latin-1", "gzip", "missing colon", "curl -d", "text/plain"],
)
def test_a_body_that_cannot_be_read_says_what_it_is(tiny_client, content, headers, message):
    response = tiny_client.post("/v1/completions", content=content, headers=headers)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "nearest"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completion", "/v1/chat/completions"),
        ("/completions", "/v1/completions"),
        ("/v1/denoize", "/v1/denoise"),
    ],
)
def test_a_route_that_resembles_another_asks_for_it(tiny_client, path, nearest):
    error = tiny_client.post(path, json={}).json()["error"]
    assert error["code"] == "route_not_found"
    assert error["message"].endswith(f"did you mean {nearest}?")


def test_a_route_that_resembles_none_asks_for_nothing(tiny_client):
    assert "did you mean" not in tiny_client.post("/some/thing/else/entirely", json={}).json()["error"]["message"]


@pytest.mark.parametrize(
    ("name", "nearest"), [("max_token", "max_tokens"), ("block_len", "block_length"), ("temprature", "temperature")]
)
def test_a_misspelt_field_asks_for_the_nearest(tiny_client, name, nearest):
    error = tiny_client.post("/v1/completions", json={"prompt": [1], name: 4}).json()["error"]
    assert (error["param"], error["code"]) == (name, "unknown_parameter")
    assert error["message"] == f"{name} is not a field of this endpoint; did you mean {nearest}?"
