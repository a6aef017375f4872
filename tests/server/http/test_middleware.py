"""API keys and path prefixes, which concern every route."""

import json

import httpx
import pytest

from server.http import middleware
from tests.server.conftest import GatedSampler, serving, until


def test_behind_a_proxy_that_strips_a_prefix_page_and_api_work(tiny):
    with serving(tiny, root_path="/llada", api_key=["secret"]) as url, httpx.Client(base_url=url) as client:
        for path in ("/", "/health", "/static/app.js"):
            assert client.get(path).status_code == 200
        assert client.get("/v1/models").status_code == 401
        assert client.get("/v1/models", headers={"Authorization": "Bearer secret"}).status_code == 200
        assert client.get("/openapi.json", headers={"Authorization": "Bearer secret"}).json()["servers"] == [
            {"url": "/llada"}
        ]


def test_api_keys_guard_everything_but_pages_health_and_metrics(tiny):
    with (
        serving(tiny, api_key=["secret", "other"], cors_origin=["https://a.example"]) as url,
        httpx.Client(base_url=url) as client,
    ):
        for path in ("/", "/health", "/ready", "/metrics", "/docs", "/openapi.json", "/static/app.js"):
            assert client.get(path).status_code == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
            response = client.get("/v1/models", headers=headers)
            assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
            assert response.json()["error"]["code"] == "invalid_api_key"
        for key in ("secret", "other"):
            assert client.get("/v1/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
        preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
        assert client.options("/v1/completions", headers=preflight).status_code == 200


@pytest.mark.parametrize("route", ["/", "/health", "/ready", "/metrics", "/version", "/v1/models", "/v1/models/tiny"])
def test_head_answers_like_get_without_the_body(tiny_client, route):
    get, head = tiny_client.get(route), tiny_client.head(route)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-type"] == get.headers["content-type"]
    assert head.headers["content-length"] == get.headers["content-length"] or route == "/metrics"


def test_head_of_a_route_that_only_answers_post_says_so(tiny_client):
    response = tiny_client.head("/v1/completions")
    assert (response.status_code, response.headers["allow"], response.content) == (405, "POST", b"")


def test_head_of_a_stream_neither_reads_nor_ends_it(tiny_client):
    with tiny_client.stream("POST", "/v1/denoise", json={"prompt": [1], "max_tokens": 3}) as response:
        stream_id = json.loads(next(line for line in response.iter_lines() if line.startswith("data: "))[6:])["id"]
    # The server learns a little later that the first connection has ended.
    until(lambda: tiny_client.head(f"/v1/denoise/{stream_id}").status_code == 200)
    text = tiny_client.get(f"/v1/denoise/{stream_id}").text
    assert text.count("event: step") == 3
    assert "event: done" in text


def test_the_clients_request_id_comes_back_if_it_is_short_and_printable(tiny_client):
    for request_id in ("abc-123", "x" * 128, "a b"):
        assert tiny_client.get("/health", headers={"X-Request-Id": request_id}).headers["x-request-id"] == request_id
    for request_id in ("x" * 129, "caf\u00e9".encode("latin-1"), b"tab\there", ""):
        headers = {"X-Request-Id": request_id}
        assert tiny_client.get("/health", headers=headers).headers["x-request-id"].startswith("req-")


@pytest.mark.parametrize("path", ["/v1/models", "/llm/v1/models", "/llm/health", "/health", "/llm/", "/llm"])
def test_below_a_root_path_both_the_stripped_and_the_whole_path_work(tiny, path):
    with serving(tiny, root_path="/llm") as url:
        assert httpx.get(url + path, follow_redirects=True).status_code == 200


def test_a_path_that_only_begins_like_the_root_path_is_not_stripped(tiny):
    with serving(tiny, root_path="/llm") as url:
        assert httpx.get(f"{url}/llmx/health").status_code == 404


def test_the_bodies_of_all_requests_under_way_are_bounded_together(tiny, monkeypatch):
    monkeypatch.setattr(middleware, "MAX_BYTES_UNDER_WAY", 300_000)
    body = {"prompt": [1], "max_tokens": 1, "user": "x" * 200_000}
    sampler = GatedSampler(tiny)
    with serving(tiny, sampler=sampler) as url:
        sampler.gate.clear()
        with httpx.stream("POST", f"{url}/v1/denoise", json=body, timeout=30) as running:
            assert running.status_code == 200
            refused = httpx.post(f"{url}/v1/completions", json=body)
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_bytes")
            small = {**body, "user": "x"}
            assert httpx.post(f"{url}/tokenize", json={"prompt": "x"}).status_code == 400  # it has no tokenizer
            sampler.gate.set()
            assert httpx.post(f"{url}/v1/completions", json=small, timeout=30).status_code == 200
            assert "event: done" in running.read().decode()
        until(lambda: httpx.post(f"{url}/v1/completions", json=body, timeout=30).status_code == 200)
