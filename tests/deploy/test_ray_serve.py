"""Replicas under Ray Serve: they join under load, keep their streams, and are replaced when they die or break."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import pairwise

import httpx
import psutil
import pytest

from llada_core import generate
from llada_core.model.interface import MaskPredictor
from tests.deploy.ray_cluster import name_in, num_running, run_replicas, small_ray
from tests.server.conftest import events_of, until

# Ray's own warnings are not ours.
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]

# On one core a stream takes seconds: time to act while it runs.
BODY = {"prompt": [5, 6, 7], "max_tokens": 128, "steps": 128, "temperature": 0.8, "ignore_eos": True}
NUM_STREAMS = 8


@pytest.fixture(scope="module")
def ray_url() -> Iterator[str]:
    """The base URL of a Ray of its own."""
    pytest.importorskip("ray", reason="`make test-cluster` installs Ray")
    with small_ray() as url:
        yield url


@pytest.fixture(scope="module")
def client(ray_url) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=ray_url, timeout=120) as client:
        yield client


def begun(response: httpx.Response) -> tuple[str, Iterator[str]]:
    """The id of a stream that has sent its first step, and its further lines."""
    lines = response.iter_lines()
    start = next(line for line in lines if line.startswith("data: "))
    assert "event: step" in lines
    return json.loads(start.removeprefix("data: "))["id"], lines


def test_the_replica_of_a_path_is_the_one_that_its_stream_names():
    from deploy.ray_serve import replica_of

    assert replica_of("/v1/denoise/denoise-ab12-0f0f") == replica_of("/llada/v1/denoise/denoise-ab12-0f0f/x") == "ab12"
    assert replica_of("/v1/denoise/other") == ""
    assert replica_of("/v1/denoise") is replica_of("/health") is None


def singly(demo: MaskPredictor, seed: int) -> list[int]:
    """The tokens of a stream that runs alone, without a server."""
    settings = {name: value for name, value in BODY.items() if name != "prompt"}
    return generate(demo, [BODY["prompt"]], seed=seed, **settings)[0].token_ids


@pytest.fixture(scope="module")
def two_replicas(client) -> None:
    """Requests for more than one replica, until there are two."""
    run_replicas(2)
    assert num_running() == 1

    def ask_until_two() -> None:
        while num_running() < 2:
            assert client.post("/v1/completions", json={**BODY, "max_tokens": 32, "steps": 32}).status_code == 200

    with ThreadPoolExecutor(6) as pool:
        for asking in [pool.submit(ask_until_two) for _ in range(6)]:
            asking.result(120)


def test_streams_flow_and_go_on_in_their_replica(two_replicas, client):
    seen = set()
    while len(seen) < 2:
        with client.stream("POST", "/v1/denoise", json=BODY) as response:
            stream_id, _ = begun(response)
            # Its first step has come while it runs, and a second reader finds the same replica.
            second = client.get(f"/v1/denoise/{stream_id}")
            assert (second.status_code, second.json()["error"]["code"]) == (409, "stream_is_read")
        seen.add(name_in(stream_id))
        until(lambda: client.get("/load").json()["server_load"] == 0)
        resumed = client.get(f"/v1/denoise/{stream_id}", headers={"Last-Event-ID": "1"})
        numbers = [line.removeprefix("id: ") for line in resumed.text.splitlines() if line.startswith("id: ")]
        assert numbers == [str(number) for number in range(2, 130)]


def test_a_killed_replica_loses_its_own_streams_only_and_is_replaced(two_replicas, client, demo):
    starting = threading.Lock()
    started = threading.Barrier(NUM_STREAMS + 1)

    def stream(seed: int) -> tuple[str, list[int] | None]:
        """The stream's id and tokens; None if it broke."""
        with ExitStack() as stack:
            # One by one: Ray learns only now and then how much each replica has to do.
            with starting:
                response = stack.enter_context(client.stream("POST", "/v1/denoise", json={**BODY, "seed": seed}))
                stream_id, lines = begun(response)
            started.wait(60)
            try:
                (done,) = [line for before, line in pairwise(lines) if before == "event: done"]
            except httpx.RemoteProtocolError:
                return stream_id, None
        return stream_id, json.loads(done.removeprefix("data: "))["token_ids"]

    with ThreadPoolExecutor(NUM_STREAMS) as pool:
        streams = [pool.submit(stream, seed) for seed in range(NUM_STREAMS)]
        started.wait(60)
        next(child for child in psutil.Process().children(recursive=True) if "ServeReplica" in child.name()).kill()
        outcomes = [each.result(60) for each in streams]

    lost = {stream_id: seed for seed, (stream_id, tokens) in enumerate(outcomes) if tokens is None}
    dead = {name_in(stream_id) for stream_id in lost}
    alive = {name_in(stream_id) for stream_id, tokens in outcomes if tokens is not None}
    assert len(dead) == len(alive) == 1 and dead != alive
    for seed, (_, tokens) in enumerate(outcomes):
        assert tokens is None or tokens == singly(demo, seed)
    for stream_id in lost:
        gone = client.get(f"/v1/denoise/{stream_id}", headers={"Last-Event-ID": "1"})
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "stream_not_found")
    # The client asks again: the same request and seed give the same tokens, whichever replica answers.
    seed = min(lost.values())
    again = client.post("/v1/denoise", json={**BODY, "seed": seed})
    assert events_of(again)[-1][1]["token_ids"] == singly(demo, seed)
    until(lambda: num_running() == 2, 60)
    short = {"prompt": [5], "max_tokens": 1}
    until(lambda: name_in(client.post("/v1/completions", json=short).json()["id"]) not in dead | alive, 60)


def test_a_replica_whose_engine_breaks_is_replaced(client):
    # A step of 32 canvases takes seconds, which these settings call hanging.
    run_replicas(1, step_timeout=0.5, max_batch_tokens=100_000)
    small = {"prompt": [5], "max_tokens": 1}
    name = name_in(client.post("/v1/completions", json=small).json()["id"])
    broken = client.post("/v1/completions", json={**BODY, "max_tokens": 480, "steps": 480, "n": 32})
    assert (broken.status_code, broken.json()["error"]["code"]) == (503, "engine_broken")

    def is_replaced() -> bool:
        answer = client.post("/v1/completions", json=small)
        return answer.status_code == 200 and name_in(answer.json()["id"]) != name

    until(is_replaced, 90)


def test_a_replica_that_is_removed_finishes_its_streams(client):
    from ray import serve

    run_replicas(1, shutdown_grace=60)
    with client.stream("POST", "/v1/denoise", json=BODY) as response, ThreadPoolExecutor(1) as pool:
        _, lines = begun(response)
        removing = pool.submit(serve.delete, "default")
        assert "event: done" in lines
        removing.result(60)
