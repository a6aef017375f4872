"""A real Prometheus scrapes a real server: every query of the dashboard has data, each alert fires with its cause."""

import contextlib
import math
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import yaml

from tests.deploy.test_monitoring import DEPLOY, QUERIES
from tests.live_server import LiveServer
from tests.server.conftest import GatedSampler, gauge, serving, until
from tests.server.engine.test_giving_up import FailingSampler

pytestmark = [
    pytest.mark.monitoring,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="Debian's prometheus is missing"),
]

BODY = {"prompt": [4, 5, 6], "max_tokens": 8, "ignore_eos": True}
CACHED = {**BODY, "max_tokens": 64, "cache": "dual", "block_length": 8}


@contextlib.contextmanager
def prometheus(target: str, folder: Path) -> Iterator[str]:
    """Run Prometheus as `deploy/` configures it, but faster: a scrape each second, short times in the rules."""
    config = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    (job,) = config["scrape_configs"]
    config["scrape_configs"] = [
        {"job_name": job["job_name"], "static_configs": [{"targets": [target.removeprefix("http://")]}]}
    ]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    rules = (DEPLOY / "alerts.yml").read_text()
    rules = re.sub(r"for: \w+", "for: 1s", rules).replace("[5m]", "[10s]")
    (folder / "alerts.yml").write_text(rules)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={address}", "--log.level=warn",
    ]  # fmt: skip
    with subprocess.Popen(command) as process:
        try:
            until(lambda: is_ready(f"http://{address}"), seconds=30)
            yield f"http://{address}"
        finally:
            process.terminate()


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready").status_code == 200
    except httpx.ConnectError:
        return False


def values(url: str, query: str) -> list[float]:
    answer = httpx.get(f"{url}/api/v1/query", params={"query": query}).json()
    assert answer["status"] == "success", answer
    return [float(sample["value"][1]) for sample in answer["data"]["result"]]


def firing(url: str) -> set[str]:
    alerts = httpx.get(f"{url}/api/v1/alerts").json()["data"]["alerts"]
    return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


@contextlib.contextmanager
def repeating(work: Callable[[], object]) -> Iterator[None]:
    """Do something over and over, in a thread, while the block lasts."""
    is_over = threading.Event()

    def repeat() -> None:
        while not is_over.is_set():
            work()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def test_every_query_of_the_dashboard_has_data(tmp_path):
    def ask() -> None:
        for path, body in (
            ("/v1/completions", {"prompt": "The sky is", "max_tokens": 4}),
            (
                "/v1/chat/completions",
                {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, "stream": True},
            ),
            ("/v1/score", {"prompt": "The sky", "completion": " is blue", "mc_num": 2}),
        ):
            assert httpx.post(server.url + path, json=body, timeout=30).status_code == 200

    with LiveServer() as server, prometheus(server.url, tmp_path) as url, repeating(ask):
        for query in (query.replace("$__rate_interval", "5s").replace("$instance", ".*") for query in QUERIES.values()):
            until(lambda query=query: any(map(math.isfinite, values(url, query))), seconds=30)
        assert firing(url) == set()


def test_failing_steps_fire_until_one_succeeds(tiny, tmp_path):
    sampler = FailingSampler(tiny)
    with serving(tiny, sampler=sampler) as target, prometheus(target, tmp_path) as url:
        until(lambda: values(url, "llada_ready") == [1])
        assert firing(url) == set()
        for _ in range(5):
            assert httpx.post(f"{target}/v1/completions", json=BODY).status_code == 500
        until(lambda: firing(url) == {"LladaNotReady", "LladaStepsFail"}, seconds=30)
        sampler.is_failing = False
        assert httpx.post(f"{target}/v1/completions", json=BODY).status_code == 200
        until(lambda: firing(url) == set(), seconds=30)


def test_a_server_that_is_gone_is_not_ready(tiny, tmp_path):
    with contextlib.ExitStack() as server:
        target = server.enter_context(serving(tiny))
        with prometheus(target, tmp_path) as url:
            until(lambda: values(url, "llada_ready") == [1])
            server.close()
            until(lambda: firing(url) == {"LladaNotReady"}, seconds=30)


def test_refused_requests_fire(tiny, tmp_path):
    sampler = GatedSampler(tiny)
    settings = {"max_batch_size": 1, "max_queue": 0}
    with serving(tiny, sampler=sampler, **settings) as target, prometheus(target, tmp_path) as url:
        sampler.gate.clear()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(httpx.post, f"{target}/v1/completions", json=BODY, timeout=60)
            until(lambda: gauge(target, "llada_requests_running") == 1)

            def ask():
                assert httpx.post(f"{target}/v1/completions", json=BODY).status_code == 429
                time.sleep(0.1)

            with repeating(ask):
                until(lambda: firing(url) == {"LladaRefusing"}, seconds=25)
            sampler.gate.set()


def test_a_slow_first_commit_fires(tiny, tmp_path):
    sampler = GatedSampler(tiny)
    with serving(tiny, sampler=sampler) as target, prometheus(target, tmp_path) as url:
        sampler.gate.clear()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(httpx.post, f"{target}/v1/completions", json=BODY, timeout=60)
            time.sleep(11)
            sampler.gate.set()
        until(lambda: firing(url) == {"LladaSlowFirstCommit"}, seconds=30)


def test_caches_that_are_full_fire_while_a_request_waits_for_memory(tiny, tmp_path):
    limit = cache_bytes_of_one(tiny)
    sampler = GatedSampler(tiny)
    with serving(tiny, sampler=sampler, kv_cache_memory=limit) as target, prometheus(target, tmp_path) as url:
        sampler.gate.clear()
        with ThreadPoolExecutor(2) as pool:
            pool.submit(httpx.post, f"{target}/v1/completions", json=CACHED, timeout=60)
            until(lambda: gauge(target, "llada_kv_cache_bytes") == limit)
            pool.submit(httpx.post, f"{target}/v1/completions", json=CACHED, timeout=60)
            until(lambda: firing(url) == {"LladaCacheFull"}, seconds=25)
            sampler.gate.set()


def cache_bytes_of_one(model) -> int:
    """The memory that one request with a cache sets aside."""
    sampler = GatedSampler(model)
    with serving(model, sampler=sampler) as target, ThreadPoolExecutor(1) as pool:
        sampler.gate.clear()
        pool.submit(httpx.post, f"{target}/v1/completions", json=CACHED, timeout=60)
        until(lambda: gauge(target, "llada_kv_cache_bytes") > 0)
        limit = int(gauge(target, "llada_kv_cache_bytes"))
        sampler.gate.set()
    return limit
