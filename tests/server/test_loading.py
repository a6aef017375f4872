"""A server whose model is still being loaded."""

import contextlib
import threading
import time

import httpx
import pytest
import uvicorn

from server.app import create_app, create_waiting_app
from server.loading import LoadingApp
from server.settings import Settings
from tests.server.conftest import until


@contextlib.contextmanager
def loading(load, **options):
    """A uvicorn with an app that loads by `load`; yields the app and the base URL."""
    settings = Settings(served_model_name="tiny", **options)
    ended = threading.Event()
    app = LoadingApp(create_waiting_app(settings), lambda: load(settings), on_end=ended.set)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", root_path=settings.root_path))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started)
        yield app, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
    assert not thread.is_alive()


def test_while_the_model_is_loaded_the_server_is_alive_and_not_ready(tiny):
    gate = threading.Event()

    def load(settings):
        gate.wait(30)
        return create_app(settings, tiny, None)

    with loading(load) as (app, url):
        assert httpx.get(f"{url}/health").json() == {"status": "ok"}
        assert httpx.head(f"{url}/ping").status_code == 200
        for path in ("/", "/static/app.js"):
            assert httpx.get(url + path).status_code == 200
        for request in (httpx.get(f"{url}/ready"), httpx.post(f"{url}/v1/completions", json={"prompt": [1]})):
            assert (request.status_code, request.json()["error"]["code"]) == (503, "loading")
            assert request.headers["retry-after"] == "1"
            assert request.headers["x-request-id"]
        gate.set()
        until(lambda: app.loaded is not None)
        assert httpx.get(f"{url}/ready").status_code == 200
        answer = httpx.post(f"{url}/v1/completions", json={"prompt": [1], "max_tokens": 2})
        assert answer.json()["usage"]["prompt_tokens"] == 1


def test_keys_hosts_and_prefix_hold_while_the_model_is_loaded(tiny):
    gate = threading.Event()

    def load(settings):
        gate.wait(30)
        return create_app(settings, tiny, None)

    with loading(load, api_key=["secret"], root_path="/llm") as (_, url):
        try:
            assert httpx.get(f"{url}/llm/health").status_code == 200
            assert httpx.get(f"{url}/v1/models").status_code == 401
            assert httpx.get(f"{url}/health", headers={"Host": "evil.example"}).status_code == 403
        finally:
            gate.set()


def test_an_error_of_loading_is_kept_for_whoever_started_it():
    def load(settings):
        raise ValueError("config.json: no model")

    with loading(load) as (app, url):
        until(lambda: app.error is not None)
        assert str(app.error) == "config.json: no model"
        assert httpx.get(f"{url}/ready").status_code == 503


@pytest.mark.parametrize("seconds", [1.0])
def test_a_server_that_is_stopped_does_not_wait_for_its_model(tiny, seconds):
    gate = threading.Event()

    def load(settings):
        gate.wait(30)
        return create_app(settings, tiny, None)

    with loading(load):
        started = time.monotonic()
    assert time.monotonic() - started < 10 * seconds
    gate.set()
