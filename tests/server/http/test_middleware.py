"""API keys and path prefixes, which concern every route."""

import httpx

from tests.server.conftest import serving


def test_behind_a_proxy_that_strips_a_prefix_page_and_api_work(tiny):
    with serving(tiny, root_path="/llada", api_key=["secret"]) as url, httpx.Client(base_url=url) as client:
        for path in ("/", "/health", "/static/app.js"):
            assert client.get(path).status_code == 200
        assert client.get("/v1/models").status_code == 401
        assert client.get("/v1/models", headers={"Authorization": "Bearer secret"}).status_code == 200
        assert client.get("/openapi.json", headers={"Authorization": "Bearer secret"}).json()["servers"] == [
            {"url": "/llada"}
        ]


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
