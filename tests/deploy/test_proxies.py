"""The examples for nginx and Caddy, really run: two replicas behind each, with the proxy's default buffering."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from llada_core.sampling.sampler import Sampler
from server.http import sse
from tests.live_server import free_port
from tests.server.conftest import GatedSampler, gauge, serving, until

DEPLOY = Path(__file__).parents[2] / "deploy"
BODY = {"prompt": [1, 2, 3], "max_tokens": 40, "steps": 40, "ignore_eos": True}
RESUMED = 'llada_responses_total{{route="/v1/denoise/{{stream_id}}",status="{}"}}'

Proxy = Callable[..., "contextlib.AbstractContextManager[str]"]


class SteppedSampler(Sampler):
    """Computes a step for each permit."""

    def __init__(self, model):
        super().__init__(model)
        self.permits = threading.Semaphore(0)

    def step(self, canvases):
        assert self.permits.acquire(timeout=30)
        return super().step(canvases)


class DyingSampler(Sampler):
    """Ends the model thread in its first step."""

    def step(self, canvases):
        raise SystemExit


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextlib.contextmanager
def running(command: list[str], folder: Path, port: int) -> Iterator[str]:
    """Run a proxy while the block lasts; yields its base URL."""
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "HOME": str(folder)})
    try:
        until(lambda: process.poll() is not None or listens(port))
        assert process.poll() is None, (folder / "log").read_text()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def example(name: str, port: int, replicas: list[str], marks: dict[str, str]) -> str:
    """The example's text with this port and these replicas; nothing else is changed."""
    text = (DEPLOY / name).read_text()
    for number, replica in enumerate(replicas, start=1):
        marks[f"llada-{number}:8000"] = replica.removeprefix("http://")
    for mark, replacement in marks.items():
        assert mark in text
        text = text.replace(mark, replacement.format(port=port))
    return text


def nginx(folder: Path, *replicas: str) -> contextlib.AbstractContextManager[str]:
    port = free_port()
    (folder / "llada.conf").write_text(
        example("nginx.conf", port, replicas, {"listen 80;": "listen 127.0.0.1:{port};"})
    )
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    (folder / "nginx.conf").write_text(
        f"daemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}include {folder}/llada.conf;\n}}\n"
    )
    return running(["nginx", "-e", "stderr", "-c", f"{folder}/nginx.conf"], folder, port)


def caddy(folder: Path, *replicas: str) -> contextlib.AbstractContextManager[str]:
    port = free_port()
    text = example("Caddyfile", port, replicas, {":80 {": "http://127.0.0.1:{port} {{"})
    (folder / "Caddyfile").write_text("{\n\tadmin off\n}\n" + text)
    return running(["caddy", "run", "--config", f"{folder}/Caddyfile"], folder, port)


@pytest.fixture(params=[pytest.param(nginx, id="nginx"), pytest.param(caddy, id="caddy", marks=pytest.mark.cluster)])
def proxy(request, tmp_path) -> Proxy:
    """Starts a proxy in front of replicas; without its package the tests are skipped or, in CI, fail."""
    name = request.param.__name__
    if shutil.which(name) is None:
        reason = f"the tests of the example for {name} need {name}, which is not on the PATH"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return lambda *replicas: request.param(tmp_path, *replicas)


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    """One client for all requests: a new one costs a tenth of a second."""
    with httpx.Client(timeout=30) as client:
        yield client


def broken_stream(client: httpx.Client, url: str) -> str:
    """Read a stream up to its first step, then drop the connection; returns its id."""
    with client.stream("POST", f"{url}/v1/denoise", json=BODY) as response:
        assert response.status_code == 200
        lines = response.iter_lines()
        start = next(line for line in lines if line.startswith("data: "))
        assert "event: step" in lines
    return start.split('"id":"')[1].split('"')[0]


def test_every_event_arrives_before_the_next_step_is_computed(tiny, proxy, client):
    sampler = SteppedSampler(tiny)
    with serving(tiny, sampler=sampler) as replica, proxy(replica, replica) as url:
        with client.stream("POST", f"{url}/v1/denoise", json=BODY) as response:
            lines = response.iter_lines()
            for _ in range(20):
                sampler.permits.release()
                assert "event: step" in lines
        sampler.permits.release(40)
        # The client has left, and the server knows.
        until(lambda: gauge(replica, "llada_requests_running") == 0)
    assert sampler.permits.acquire(blocking=False)


def test_comments_pass_while_no_event_is_ready(tiny, proxy, client, monkeypatch):
    monkeypatch.setattr(sse, "PING_SECONDS", 0.1)
    sampler = GatedSampler(tiny)
    sampler.gate.clear()
    with serving(tiny, sampler=sampler) as replica, proxy(replica, replica) as url:
        with client.stream("POST", f"{url}/v1/denoise", json=BODY) as response:
            lines = response.iter_lines()
            for _ in range(3):
                assert any(line.startswith(": ping") for line in lines)
        sampler.gate.set()


def test_a_stream_goes_on_in_the_replica_that_began_it(tiny, proxy, client):
    with serving(tiny) as one, serving(tiny) as two, proxy(one, two) as url:
        ids = [broken_stream(client, replica) for replica in (one, two, url)]
        until(lambda: gauge(one, "llada_requests_running") == gauge(two, "llada_requests_running") == 0)
        for stream_id in ids:
            resumed = client.get(f"{url}/v1/denoise/{stream_id}", headers={"Last-Event-ID": "1"})
            numbers = [line.removeprefix("id: ") for line in resumed.text.splitlines() if line.startswith("id: ")]
            assert numbers == [str(number) for number in range(2, 42)]
        assert all(gauge(replica, RESUMED.format(200)) >= 1 for replica in (one, two))


def test_a_stream_whose_replica_is_gone_gets_the_documented_error(tiny, proxy, client):
    with contextlib.ExitStack() as stack, serving(tiny) as survivor:
        gone = stack.enter_context(serving(tiny))
        with proxy(gone, survivor) as url:
            kept, lost = broken_stream(client, survivor), broken_stream(client, gone)
            stack.close()
            for stream_id, status in ((lost, 404), (kept, 200), (lost, 404)):
                answer = client.get(f"{url}/v1/denoise/{stream_id}")
                assert answer.status_code == status
                assert status == 200 or answer.json()["error"]["code"] == "stream_not_found"
            for _ in range(4):
                assert client.post(f"{url}/v1/completions", json=BODY).status_code == 200


def test_a_replica_that_cannot_serve_is_passed_over(tiny, proxy, client):
    with serving(tiny, sampler=DyingSampler(tiny)) as broken, serving(tiny) as whole, proxy(broken, whole) as url:
        assert client.post(f"{broken}/v1/completions", json=BODY).status_code == 503
        # nginx asks the other replica; Caddy first has to learn from /ready which one to leave out.
        until(lambda: all(client.get(f"{url}/ready").is_success for _ in range(20)))
        for _ in range(4):
            assert client.post(f"{url}/v1/completions", json=BODY).status_code == 200


def test_errors_are_json_whoever_makes_them(tiny, proxy, client):
    with serving(tiny) as replica, proxy(replica, replica) as url:
        too_large = client.post(f"{url}/v1/completions", content=b"[" * 4_500_000)
        assert too_large.status_code == 413 and too_large.json()["error"]["code"] == "request_too_large"
        assert client.get(f"{url}/metrics").status_code == 404
    dead = f"http://127.0.0.1:{free_port()}"
    with proxy(dead, dead) as url:
        for path, status, code in (("completions", 503, "no_replica"), ("denoise/denoise-1", 404, "stream_not_found")):
            answer = client.request("POST" if status == 503 else "GET", f"{url}/v1/{path}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
