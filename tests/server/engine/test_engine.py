"""The engine behind real HTTP: steps that block or fail, and clients that leave."""

import asyncio
import json
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import torch

from llada_core.sampling.generate import generate
from llada_core.sampling.params import GenerationParams
from llada_core.sampling.prepare import Vocabulary, prepare_response
from llada_core.sampling.sampler import Sampler
from server.app import create_app
from server.engine.engine import Engine
from server.engine.metrics import Metrics
from server.engine.scheduler import Scheduler
from server.settings import Settings
from tests.server.conftest import GatedSampler, gauge, serving, until

LONG = {"prompt": [1, 2, 3], "max_tokens": 200, "ignore_eos": True}
SHORT = {"prompt": [4, 5], "max_tokens": 2, "ignore_eos": True}


class PoisonedSampler(Sampler):
    """Fails whenever the prompt of a canvas starts with 13."""

    def step(self, canvases):
        if any(canvas.tokens[0] == 13 for canvas in canvases):
            raise RuntimeError("poisoned")
        return super().step(canvases)


def test_health_answers_while_a_step_is_blocked(tiny):
    sampler = GatedSampler(tiny)
    sampler.gate.clear()
    with serving(tiny, sampler=sampler) as url, ThreadPoolExecutor() as pool:
        answer = pool.submit(httpx.post, f"{url}/v1/completions", json=SHORT, timeout=30)
        until(lambda: gauge(url, "llada_requests_running") == 1)
        for _ in range(5):
            started = time.monotonic()
            assert httpx.get(f"{url}/health").status_code == 200
            assert time.monotonic() - started < 5
        assert not answer.done()
        sampler.gate.set()
        assert answer.result().status_code == 200


def test_a_short_request_beside_a_long_one_takes_part_in_the_next_step(tiny):
    sampler = GatedSampler(tiny)
    with serving(tiny, sampler=sampler) as url, ThreadPoolExecutor() as pool:
        long = pool.submit(httpx.post, f"{url}/v1/completions", json=LONG, timeout=60)
        until(lambda: len(sampler.steps) > 3)
        sampler.gate.clear()
        before = len(sampler.steps)
        short = pool.submit(httpx.post, f"{url}/v1/completions", json=SHORT, timeout=60)
        until(lambda: gauge(url, "llada_requests_running") + gauge(url, "llada_requests_waiting") == 2)
        sampler.gate.set()
        assert short.result().status_code == 200
        assert not long.done()
        assert long.result().status_code == 200
    # A step was already running when the request came; the request is in the next one.
    assert any(sorted(batch) == [4, 203] for batch in sampler.steps[before : before + 2])


@pytest.mark.parametrize("body", [{"stream": True}, {}], ids=["streamed", "plain"])
def test_a_client_that_leaves_is_out_of_the_batch_before_the_next_step(tiny, body):
    sampler = GatedSampler(tiny)
    sampler.gate.clear()
    with serving(tiny, sampler=sampler) as url:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{url}/v1/completions", json={**LONG, **body}, timeout=0.5)
        until(lambda: gauge(url, "llada_requests_running") == 0)
        sampler.gate.set()
        assert httpx.post(f"{url}/v1/completions", json=SHORT).status_code == 200
    # Only the step that was already at the gate contained the lost request.
    assert [batch for batch in sampler.steps if 203 in batch] == [[203]]


def test_a_failed_step_fails_only_the_request_that_caused_it(tiny):
    with serving(tiny, sampler=PoisonedSampler(tiny)) as url, ThreadPoolExecutor(8) as pool:
        bodies = [{"prompt": [13 if number == 3 else 4], "max_tokens": 40, "ignore_eos": True} for number in range(8)]
        answers = list(pool.map(lambda body: httpx.post(f"{url}/v1/completions", json=body, timeout=60), bodies))
        assert [answer.status_code for answer in answers] == [200] * 3 + [500] + [200] * 4
        error = answers[3].json()["error"]
        assert error["type"] == "server_error"
        assert answers[3].headers["x-request-id"] in error["message"]
        assert "poisoned" not in answers[3].text
        assert httpx.get(f"{url}/health").status_code == 200


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("[enforce fail] can't allocate memory")],
)
def test_out_of_memory_in_a_step_makes_batches_smaller_and_loses_no_request(tiny, error, caplog):
    class Narrow(GatedSampler):
        def step(self, canvases):
            if sum(len(canvas.tokens) for canvas in canvases) > 100:
                raise error
            return super().step(canvases)

    sampler = Narrow(tiny)
    body = {"prompt": [4], "max_tokens": 39, "ignore_eos": True, "n": 8, "return_token_ids": True}
    with serving(tiny, sampler=sampler) as url:
        answer = httpx.post(f"{url}/v1/completions", json=body, timeout=60)
        assert answer.status_code == 200
    ids = [choice["token_ids"] for choice in answer.json()["choices"]]
    assert ids == [generate(tiny, [[4]], GenerationParams(gen_length=39, ignore_eos=True))[0].token_ids] * 8
    assert {len(batch) for batch in sampler.steps[-20:]} == {1}
    assert [record.getMessage() for record in caplog.records if "memory" in record.getMessage()] == [
        f"out of memory in a step: steps have at most {tokens} tokens from now on" for tokens in (120, 60)
    ]


def test_out_of_memory_with_a_single_request_is_tried_once_more_and_then_its_error(tiny, caplog):
    class Full(Sampler):
        tries = 0

        def step(self, canvases):
            Full.tries += 1
            raise MemoryError

    with serving(tiny, sampler=Full(tiny)) as url:
        assert httpx.post(f"{url}/v1/completions", json=SHORT).status_code == 500
    assert Full.tries == 2
    assert "from now on" not in caplog.text


def test_a_second_try_has_the_memory_of_the_first(tiny):
    tensors, still_held = [], []

    class Full(Sampler):
        def step(self, canvases):
            still_held.append(any(tensor() is not None for tensor in tensors))
            hidden = torch.zeros(1)
            tensors.append(weakref.ref(hidden))
            raise MemoryError

    with serving(tiny, sampler=Full(tiny)) as url:
        assert httpx.post(f"{url}/v1/completions", json=SHORT).status_code == 500
    assert still_held == [False, False]


def test_an_error_after_the_start_of_a_stream_is_its_last_event(tiny):
    class FailsLater(Sampler):
        def step(self, canvases):
            if canvases[0].step == 3:
                raise RuntimeError("later")
            return super().step(canvases)

    with serving(tiny, sampler=FailsLater(tiny)) as url:
        text = httpx.post(f"{url}/v1/completions", json={**SHORT, "max_tokens": 8, "stream": True}).text
        last = [line for line in text.splitlines() if line.startswith("data: ")][-1]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "internal_error"
        assert "[DONE]" not in text
        events = httpx.post(f"{url}/v1/denoise", json={"prompt": [1], "max_tokens": 8, "ignore_eos": True}).text
        assert [line for line in events.splitlines() if line.startswith("event: ")][-1] == "event: error"


def test_a_request_past_its_time_limit_gets_504_and_leaves(tiny):
    sampler = GatedSampler(tiny)
    sampler.gate.clear()
    with serving(tiny, sampler=sampler, request_timeout=0.3) as url:
        answer = httpx.post(f"{url}/v1/completions", json=SHORT)
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
        until(lambda: gauge(url, "llada_requests_running") == 0)
        sampler.gate.set()


def test_a_full_queue_answers_429_with_retry_after(tiny):
    sampler = GatedSampler(tiny)
    sampler.gate.clear()
    with serving(tiny, sampler=sampler, max_batch_size=1, max_queue=1) as url, ThreadPoolExecutor() as pool:
        answers = [pool.submit(httpx.post, f"{url}/v1/completions", json=SHORT, timeout=30) for _ in range(2)]
        until(lambda: gauge(url, "llada_requests_running") + gauge(url, "llada_requests_waiting") == 2)
        refused = httpx.post(f"{url}/v1/completions", json=SHORT)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "queue_full")
        assert int(refused.headers["retry-after"]) >= 1
        sampler.gate.set()
        assert [answer.result().status_code for answer in answers] == [200, 200]


def test_the_event_loop_never_computes(tiny, monkeypatch):
    threads = set()
    hidden_states = type(tiny).hidden_states

    def watched(self, packed, rows):
        threads.add(threading.current_thread().name)
        return hidden_states(self, packed, rows)

    monkeypatch.setattr(type(tiny), "hidden_states", watched)
    with serving(tiny) as url:
        assert httpx.post(f"{url}/v1/completions", json=SHORT).status_code == 200
    assert threads == {"llada-engine-0"}
    assert torch.get_num_threads() == 1


def asgi_scope(method, path, headers=()):
    return {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": list(headers), "http_version": "1.1", "scheme": "http", "server": ("test", 80),
        "client": ("test", 1), "root_path": "",
    }  # fmt: skip


async def leave_at(app, scope, body, number):
    """Send a request through ASGI and disconnect during the server's n-th send; returns all that the server sent."""
    left, sent = asyncio.Event(), []
    requests = [{"type": "http.request", "body": body}]

    async def receive():
        if requests:
            return requests.pop()
        await left.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)
        if len(sent) >= number:
            left.set()
            await asyncio.sleep(0.05)

    await app(scope, receive, send)
    return sent


@pytest.mark.parametrize("number", [1, 2, 3, 6])
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/denoise"])
def test_a_client_may_leave_at_any_send_and_nothing_goes_on(tiny, path, number):
    async def scenario():
        app = create_app(Settings(), tiny, None)
        engine = app.state.service.engine
        async with app.router.lifespan_context(app):
            body = json.dumps({**LONG, "stream": True, "diffusing": True} if "comp" in path else LONG).encode()
            sent = await leave_at(app, asgi_scope("POST", path), body, number)
            assert engine.num_unfinished == 0
            if "denoise" not in path or number < 2:
                return
            stream_id = json.loads(sent[1]["body"].split(b"data: ")[1].split(b"\r\n")[0])["id"]
            for _ in range(3):  # leave in the middle of a replay, several times
                await leave_at(app, asgi_scope("GET", f"/v1/denoise/{stream_id}"), b"", 2)
                assert engine.num_unfinished == 0
            whole = await leave_at(app, asgi_scope("GET", f"/v1/denoise/{stream_id}"), b"", 10_000)
            assert b"event: done" in b"".join(message.get("body", b"") for message in whole)

    asyncio.run(scenario())


def test_a_disconnect_in_the_very_moment_of_a_step_is_not_lost(tiny):
    async def scenario():
        app = create_app(Settings(), tiny, None)
        engine = app.state.service.engine
        async with app.router.lifespan_context(app):
            for ticks in range(6):
                left = asyncio.Event()
                deliver = type(engine)._deliver

                def watched(news, ticks=ticks, left=left, deliver=deliver):
                    if news[0][1].event.step == 3:
                        asyncio.get_running_loop().call_soon(left.set) if ticks % 2 else left.set()
                    deliver(engine, news)

                engine._deliver = watched
                requests = [{"type": "http.request", "body": json.dumps(LONG).encode()}]

                async def receive(requests=requests, left=left):
                    if requests:
                        return requests.pop()
                    await left.wait()
                    return {"type": "http.disconnect"}

                async def send(message):
                    pass

                steps = []
                engine._metrics.observe_step = lambda events, steps=steps, **_: steps.extend(events)
                await app(asgi_scope("POST", "/v1/completions"), receive, send)
                assert engine.num_unfinished == 0
                assert len(steps) < 100

    asyncio.run(scenario())


def test_health_answers_while_a_prompt_is_tokenized(tiny, demo_tokenizer, monkeypatch):
    begun, gate = threading.Event(), threading.Event()

    def slow_encode(self, text, *, add_special_tokens):
        begun.set()
        gate.wait(30)
        return [1, 2]

    monkeypatch.setattr(type(demo_tokenizer), "encode", slow_encode)
    with serving(tiny, demo_tokenizer) as url, ThreadPoolExecutor() as pool:
        answer = pool.submit(httpx.post, f"{url}/v1/completions", json={"prompt": "long", "max_tokens": 2}, timeout=60)
        assert begun.wait(10)
        assert httpx.get(f"{url}/health", timeout=5).status_code == 200
        assert not answer.done()
        gate.set()
        assert answer.result().status_code == 200


def test_other_work_gets_as_much_of_the_model_as_a_request_does(tiny):
    class CountingSampler(Sampler):
        num_steps = 0

        def step(self, canvases):
            self.num_steps += 1
            return super().step(canvases)

    sampler = CountingSampler(tiny)
    params = GenerationParams(gen_length=32, ignore_eos=True)
    canvases = [prepare_response([1] * 8, params, Vocabulary.of(tiny)) for _ in range(8)]
    steps_before_part = []

    def parts():
        for _ in range(4):
            steps_before_part.append(sampler.num_steps)
            yield 8 * 40  # as many tokens as a step of all requests

    async def run():
        scheduler = Scheduler(max_batch_size=8, max_batch_tokens=8 * 40, max_queue=8)
        engine = Engine(sampler, scheduler, Metrics().engine)
        engine.start()
        requests = engine.submit(canvases)
        work = engine.start_work(parts())
        for request in requests:
            while not request.is_complete:
                await engine.next_step(request)
        await work.result()
        engine.stop()

    asyncio.run(run())
    # About one part per eight steps: the work is one of nine that share the model.
    assert steps_before_part[3] - steps_before_part[0] >= 3 * 7, steps_before_part
