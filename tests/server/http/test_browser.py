"""Pages of other origins, and names that are not the server's."""

import httpx
import pytest

from server.http.browser import BrowserGuard, own_names
from tests.server.conftest import serving

BODY = {"prompt": [1], "max_tokens": 1}


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        # Another port of this machine is another origin.
        {"Origin": "http://127.0.0.1:3000"},
        {"Origin": "http://evil.example", "Content-Type": "text/plain"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
    ],
)
def test_another_origins_page_cannot_generate(tiny_client, headers):
    response = tiny_client.post("/v1/completions", json=BODY, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (403, "origin_not_allowed")


def test_a_no_cors_blob_without_a_type_cannot_generate(tiny_client):
    headers = {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    response = tiny_client.post("/v1/completions", content=b'{"prompt": [1], "max_tokens": 1}', headers=headers)
    assert response.status_code == 403


def test_the_servers_own_page_and_programs_are_not_refused(tiny_client, tiny_url):
    for headers in (
        {},
        {"Origin": tiny_url, "Sec-Fetch-Site": "same-origin"},
        # Behind a proxy that ends TLS, the scheme differs.
        {"Origin": tiny_url.replace("http:", "https:")},
        {"Sec-Fetch-Site": "none"},
    ):
        assert tiny_client.post("/v1/completions", json=BODY, headers=headers).status_code == 200


def test_a_link_from_another_site_opens_the_page_and_a_frame_does_not(tiny_client):
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert tiny_client.get("/", headers={**headers, "Sec-Fetch-Dest": "document"}).status_code == 200
    assert tiny_client.get("/", headers={**headers, "Sec-Fetch-Dest": "iframe"}).status_code == 403
    form = {**headers, "Sec-Fetch-Dest": "document"}
    assert tiny_client.post("/v1/completions", json=BODY, headers=form).status_code == 403


@pytest.mark.parametrize("origin", ["https://a.example", "https://b.example:8443"])
def test_an_allowed_origin_may_generate_and_read(tiny, origin):
    with serving(tiny, cors_origin=["https://a.example", "https://b.example:8443"]) as url:
        headers = {"Origin": origin, "Sec-Fetch-Site": "cross-site"}
        response = httpx.post(f"{url}/v1/completions", json=BODY, headers=headers)
        assert (response.status_code, response.headers["access-control-allow-origin"]) == (200, origin)
        other = httpx.post(f"{url}/v1/completions", json=BODY, headers={"Origin": "https://a.example.evil"})
        assert other.status_code == 403


def test_any_origin_may_generate_if_all_are_allowed(tiny):
    with serving(tiny, cors_origin=["*"]) as url:
        assert httpx.post(f"{url}/v1/completions", json=BODY, headers={"Origin": "null"}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8000", "localhost.evil", "10.0.0.1"])
def test_a_host_that_is_not_this_servers_is_refused(tiny_client, host):
    for path in ("/", "/health", "/v1/models"):
        response = tiny_client.get(path, headers={"Host": host})
        assert (response.status_code, response.json()["error"]["code"]) == (403, "host_not_allowed")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9000", "127.0.0.1", "[::1]:8000"])
def test_a_loopback_server_answers_to_every_loopback_name_and_port(tiny_client, host):
    assert tiny_client.get("/health", headers={"Host": host}).status_code == 200


def test_allowed_hosts_are_answered_to(tiny):
    with serving(tiny, allowed_host=["Box.lan"]) as url:
        assert httpx.get(f"{url}/health", headers={"Host": "box.lan:80"}).status_code == 200
        assert httpx.get(f"{url}/health", headers={"Host": "other.lan"}).status_code == 403
    with serving(tiny, allowed_host=["*"]) as url:
        assert httpx.get(f"{url}/health", headers={"Host": "other.lan"}).status_code == 200


@pytest.mark.parametrize(
    ("listening", "host", "is_own"),
    [
        ("0.0.0.0", "192.168.1.7:8000", True),
        ("::", "[fe80::1]:8000", True),
        ("0.0.0.0", "localhost", True),
        ("0.0.0.0", "rebound.example", False),
        ("192.168.1.7", "192.168.1.7:8000", True),
        ("192.168.1.7", "localhost:8000", False),
        ("gpu.lan", "GPU.lan:8000", True),
        ("127.0.0.2", "localhost", True),
        ("127.0.0.1", "", True),
    ],
)
def test_the_own_names_follow_from_the_address_that_is_listened_on(listening, host, is_own):
    guard = BrowserGuard(None, listening, (), ())
    assert guard._is_own(host) is is_own


def test_the_machines_name_is_its_own_on_every_address():
    assert {"localhost", "127.0.0.1", "::1"} < own_names("0.0.0.0")


def test_every_answer_carries_the_headers_for_browsers(tiny_client):
    for path in ("/", "/static/app.js", "/health", "/v1/nowhere", "/docs"):
        headers = tiny_client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'" in tiny_client.get("/").headers["content-security-policy"]
