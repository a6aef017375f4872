"""A client that drops off and comes back."""

import time

import httpx
import pytest

from llada_core import GenerationParams, generate
from server.replies import parking
from tests.server.conftest import GatedSampler, events_of, gauge, serving, until

BODY = {"prompt": [1, 2, 3], "max_tokens": 40, "steps": 40, "ignore_eos": True}


def read_until(url: str, last_id: int, body: dict = BODY) -> tuple[str, list[str]]:
    """The stream's id and the raw lines of its events up to `last_id`; then the connection is dropped."""
    lines = []
    with httpx.stream("POST", f"{url}/v1/denoise", json=body, timeout=30) as response:
        for line in response.iter_lines():
            lines.append(line)
            if line == "" and f"id: {last_id}" in lines:
                break
    start = next(line for line in lines if line.startswith("data: "))
    return start.split('"id":"')[1].split('"')[0], lines


@pytest.mark.parametrize("last_id", [0, 7, 39, 40])
def test_a_stream_that_broke_goes_on_where_it_stood(tiny, last_id):
    with serving(tiny) as url:
        stream_id, _ = read_until(url, last_id)
        until(lambda: gauge(url, "llada_requests_running") == 0)
        resumed = httpx.get(f"{url}/v1/denoise/{stream_id}", headers={"Last-Event-ID": str(last_id)}, timeout=30)
        whole = httpx.get(f"{url}/v1/denoise/{stream_id}", timeout=30)
    ids = [int(line.removeprefix("id: ")) for line in resumed.text.splitlines() if line.startswith("id: ")]
    assert ids == list(range(last_id + 1, 42))
    events = events_of(whole)
    assert [name for name, _ in events] == ["start"] + ["step"] * 40 + ["done"]
    canvas = events[0][1]["token_ids"]
    for _, data in events[1:-1]:
        for change in data["changes"]:
            canvas[change["position"]] = change["token_id"]
    expected = generate(tiny, [[1, 2, 3]], GenerationParams(gen_length=40, ignore_eos=True))[0]
    assert canvas == events[-1][1]["token_ids"] == expected.token_ids


@pytest.mark.parametrize("cache", ["prefix", "dual", "delayed"])
def test_a_stream_with_a_cache_that_broke_ends_as_one_that_did_not(tiny, cache):
    # The tokens of an untrained model hang on every detail of the cache.
    params = {"cache": cache, "block_length": 20, "temperature": 1.0, "seed": 3}
    body = {**BODY, **params}
    expected = generate(tiny, [[1, 2, 3]], GenerationParams(gen_length=40, steps=40, ignore_eos=True, **params))[0]
    with serving(tiny) as url:
        stream_id, _ = read_until(url, 5, body)
        until(lambda: gauge(url, "llada_requests_running") == 0)
        assert gauge(url, "llada_kv_cache_bytes") == 0
        start, *steps, done = events_of(httpx.get(f"{url}/v1/denoise/{stream_id}", timeout=30))
    canvas = start[1]["token_ids"]
    for _, data in steps:
        for change in data["changes"]:
            canvas[change["position"]] = change["token_id"]
    assert canvas == done[1]["token_ids"] == expected.token_ids
    assert done[1]["usage"]["denoising_steps"] == 40


class SlowSampler(GatedSampler):
    def step(self, canvases):
        time.sleep(0.03)
        return super().step(canvases)


def test_a_parked_stream_does_not_run(tiny):
    sampler = SlowSampler(tiny)
    with serving(tiny, sampler=sampler) as url:
        stream_id, _ = read_until(url, 3)
        until(lambda: gauge(url, "llada_requests_running") == 0)
        time.sleep(0.1)
        steps = len(sampler.steps)
        time.sleep(0.3)
        assert len(sampler.steps) == steps < 40
        httpx.get(f"{url}/v1/denoise/{stream_id}", timeout=30)
        # Nothing was computed twice.
        assert len(sampler.steps) == 40


def test_a_stream_that_is_being_read_is_not_given_to_a_second_reader(tiny):
    sampler = GatedSampler(tiny)
    with serving(tiny, sampler=sampler) as url:
        with httpx.stream("POST", f"{url}/v1/denoise", json=BODY, timeout=30) as response:
            lines = response.iter_lines()
            stream_id = next(line for line in lines if line.startswith("data: ")).split('"id":"')[1].split('"')[0]
            sampler.gate.clear()
            second = httpx.get(f"{url}/v1/denoise/{stream_id}")
            assert (second.status_code, second.json()["error"]["code"]) == (409, "stream_is_read")
        sampler.gate.set()


def test_unknown_streams_and_bad_event_ids_are_refused(tiny):
    with serving(tiny) as url:
        assert httpx.get(f"{url}/v1/denoise/nothing").status_code == 404
        stream_id, _ = read_until(url, 2)
        until(lambda: gauge(url, "llada_requests_running") == 0)
        for bad in ("x", "99", "-2", "1" * 5000):
            answer = httpx.get(f"{url}/v1/denoise/{stream_id}", headers={"Last-Event-ID": bad})
            assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Last-Event-ID")


def test_a_stream_that_nobody_fetches_expires(tiny, monkeypatch):
    monkeypatch.setattr(parking, "PARKING_SECONDS", 0.2)
    with serving(tiny) as url:
        stream_id, _ = read_until(url, 2)
        # Asking would wake it.
        time.sleep(1)
        assert httpx.get(f"{url}/v1/denoise/{stream_id}").json()["error"]["code"] == "stream_not_found"


def test_a_finished_stream_is_kept_for_longer(tiny, monkeypatch):
    monkeypatch.setattr(parking, "PARKING_SECONDS", 0.1)
    monkeypatch.setattr(parking, "KEPT_SECONDS", 1.5)
    with serving(tiny) as url:
        stream_id = events_of(httpx.post(f"{url}/v1/denoise", json=BODY))[0][1]["id"]
        time.sleep(0.5)
        assert httpx.get(f"{url}/v1/denoise/{stream_id}").status_code == 200
        until(lambda: httpx.post(f"{url}/v1/denoise", json={"fork": {"id": stream_id, "step": 99}}).status_code == 404)


def test_the_memory_of_parked_streams_is_bounded(tiny, monkeypatch):
    # Three such streams are larger, two are not.
    monkeypatch.setattr(parking, "MAX_PARKED_BYTES", 80_000)
    with serving(tiny) as url:
        ids = [events_of(httpx.post(f"{url}/v1/denoise", json=BODY))[0][1]["id"] for _ in range(3)]
        # Resuming would make it the newest.
        until(lambda: httpx.post(f"{url}/v1/denoise", json={"fork": {"id": ids[0], "step": 99}}).status_code == 404)
        assert [httpx.get(f"{url}/v1/denoise/{one}").status_code for one in ids] == [404, 200, 200]


def test_the_number_of_parked_streams_is_bounded(tiny, monkeypatch):
    monkeypatch.setattr(parking, "MAX_PARKED", 2)
    with serving(tiny) as url:
        ids = [
            events_of(httpx.post(f"{url}/v1/denoise", json={**BODY, "max_tokens": 2, "steps": 2}))[0][1]["id"]
            for _ in range(3)
        ]
        until(lambda: httpx.get(f"{url}/v1/denoise/{ids[0]}").status_code == 404)
        assert httpx.get(f"{url}/v1/denoise/{ids[2]}").status_code == 200


def test_an_error_is_the_last_event_for_those_who_come_back_too(tiny):
    sampler = GatedSampler(tiny)
    with serving(tiny, sampler=sampler, request_timeout=0.5) as url:
        sampler.gate.clear()
        events = events_of(httpx.post(f"{url}/v1/denoise", json=BODY, timeout=30))
        sampler.gate.set()
        assert [name for name, _ in events] == ["start", "error"]
        stream = f"{url}/v1/denoise/{events[0][1]['id']}"
        assert events_of(httpx.get(stream, headers={"Last-Event-ID": "0"})) == events[1:]
        assert httpx.get(stream, headers={"Last-Event-ID": "1"}).text == ""
        assert gauge(url, "llada_requests_running") == 0


def test_the_time_limit_stands_still_while_a_stream_is_parked_and_goes_on_after(tiny):
    sampler = GatedSampler(tiny)
    with serving(tiny, sampler=sampler, request_timeout=3) as url:
        stream_id, _ = read_until(url, 3)
        time.sleep(3.5)
        events = events_of(httpx.get(f"{url}/v1/denoise/{stream_id}", timeout=30))
    assert events[-1][0] == "done"
