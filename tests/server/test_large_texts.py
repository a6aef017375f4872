"""Texts of megabytes: refused by their length, at a small cost, while others are served."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest

from tests.live_server import LiveServer

TEXT = "words" * 780_000
BODIES = {
    "/tokenize": {"prompt": TEXT},
    "/v1/completions": {"prompt": TEXT},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": TEXT}]},
    "/v1/responses": {"input": TEXT},
    "/v1/denoise": {"canvas": [TEXT, {"mask": 1}]},
    "/v1/score": {"prompt": "a", "completion": TEXT},
    "/v1/fim/completions": {"prompt": "a", "suffix": TEXT},
    "/v1/decisions": {"input": TEXT, "questions": [{"type": "predicate", "instructions": "x"}]},
    "/v1/systemone": {"state": TEXT, "questions": {"a": {"type": "noul"}}},
}
MEGABYTE = 2**20


@pytest.fixture(scope="module")
def server():
    with LiveServer() as server:
        yield server


@pytest.mark.parametrize("route", BODIES)
def test_a_text_of_megabytes_is_refused_by_its_length(server, route):
    answer = httpx.post(server.url + route, json=BODIES[route], timeout=30)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "context_length_exceeded")
    assert "has 3900000 characters; max_model_len is 512 tokens" in error["message"]


def test_many_at_once_take_little_memory_and_the_server_stays_awake(server):
    process = psutil.Process(server.process.pid)
    httpx.post(f"{server.url}/tokenize", json={"prompt": "x"})
    idle = process.memory_info().rss
    body = json.dumps(BODIES["/tokenize"])
    slowest, highest = 0.0, idle
    with ThreadPoolExecutor(6) as pool:
        posts = [pool.submit(httpx.post, f"{server.url}/tokenize", content=body, timeout=60) for _ in range(12)]
        while not all(post.done() for post in posts):
            started = time.monotonic()
            assert httpx.get(f"{server.url}/health", timeout=10).status_code == 200
            slowest = max(slowest, time.monotonic() - started)
            highest = max(highest, process.memory_info().rss)
    assert {post.result().status_code for post in posts} == {400}
    # It was a gigabyte for each of them.
    assert highest - idle < 300 * MEGABYTE
    # Seconds, when every text was tokenised; reading bodies of 4 MB takes some time too.
    assert slowest < 2
