"""An engine that breaks: everybody is told, nothing hangs, and the process ends for a supervisor to start it again."""

import logging
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import IO

import httpx
import pytest

from llada_core.sampling.sampler import Sampler
from server.engine.watch import Watch
from tests.conftest import GOLDEN
from tests.live_server import ForkedServer
from tests.server.conftest import gauge, serving, until

TINY = str(GOLDEN / "models" / "tiny-mha")
SHORT = {"prompt": [4, 5], "max_tokens": 2, "ignore_eos": True}
LONG = {"prompt": [1, 2, 3], "max_tokens": 200, "ignore_eos": True}


class Panic(BaseException):
    """As libraries in Rust raise them: no `Exception`."""


class BreakingSampler(Sampler):
    """Raises `error` in the third step, or waits there for ever."""

    def __init__(self, model, error):
        super().__init__(model)
        self.error, self.num_steps, self.may_end = error, 0, threading.Event()

    def step(self, canvases):
        self.num_steps += 1
        if self.num_steps == 3:
            if self.error is None:
                self.may_end.wait(60)
            else:
                raise self.error
        return super().step(canvases)


@pytest.mark.parametrize(("error", "model_threads"), [(Panic("panicked"), 1), (SystemExit(3), 2), (None, 1), (None, 2)])
def test_a_thread_that_ends_or_hangs_fails_every_request_at_once(tiny, caplog, error, model_threads):
    sampler = BreakingSampler(tiny, error)
    settings = {"step_timeout": 0.7, "model_threads": model_threads, "max_batch_size": 2}
    with caplog.at_level(logging.ERROR), serving(tiny, sampler=sampler, **settings) as url:
        started = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            posts = [pool.submit(httpx.post, f"{url}/v1/completions", json=LONG, timeout=30) for _ in range(4)]
        answers = [post.result() for post in posts]
        assert time.monotonic() - started < 10
        # Until the hanging step is noticed, another thread may finish what it has.
        refused = [answer for answer in answers if answer.status_code != 200]
        assert refused and (len(refused) == 4 or error is None)
        refused.append(httpx.post(f"{url}/v1/completions", json=SHORT, timeout=30))
        assert {(a.status_code, a.json()["error"]["code"]) for a in refused} == {(503, "engine_broken")}
        for path in ("/health", "/ready", "/ping"):
            assert httpx.get(url + path).status_code == 503
        sampler.may_end.set()
    assert [record.levelname for record in caplog.records if "engine is broken" in record.message] == ["CRITICAL"]


def test_a_stream_under_way_ends_with_the_error(tiny):
    with serving(tiny, sampler=BreakingSampler(tiny, Panic("panicked"))) as url:
        text = httpx.post(f"{url}/v1/denoise", json=LONG, timeout=30).text
    assert text.count("event: step") == 2
    assert "engine_broken" in text.split("event: error")[1]


class FailingSampler(Sampler):
    is_failing = True

    def step(self, canvases):
        if self.is_failing:
            raise RuntimeError("no step today")
        return super().step(canvases)


def test_after_five_failed_steps_the_server_is_not_ready_until_one_succeeds(tiny):
    sampler = FailingSampler(tiny)
    with serving(tiny, sampler=sampler) as url:
        for number in range(1, 7):
            assert httpx.post(f"{url}/v1/completions", json=SHORT, timeout=30).status_code == 500
            assert httpx.get(f"{url}/ready").status_code == (503 if number >= 5 else 200)
            assert httpx.get(f"{url}/health").status_code == 200
        assert httpx.get(f"{url}/ready").json()["error"]["code"] == "steps_fail"
        sampler.is_failing = False
        assert httpx.post(f"{url}/v1/completions", json=SHORT, timeout=30).status_code == 200
        assert httpx.get(f"{url}/ready").status_code == 200


def test_only_a_thread_that_computes_can_be_overdue():
    watch = Watch(step_timeout=0.01)
    with watch.computing():
        assert watch.overdue is None
        time.sleep(0.02)
        assert watch.overdue > 0.01
    assert watch.overdue is None


class BrokenServer(ForkedServer):
    """A server whose steps do what the function of `broken_server` says."""

    def __init__(self, step: str, *options: str, stderr: IO[str] | None = None) -> None:
        super().__init__("--model", TINY, *options, stderr=stderr)
        self.entry_point = f"tests.server.engine.broken_server:{step}"


@pytest.mark.parametrize(("step", "options"), [("panics", ()), ("hangs", ("--step-timeout", "0.5"))])
def test_the_process_of_a_broken_engine_ends_with_status_1(tmp_path, step, options):
    log = tmp_path / "log"
    with log.open("w") as stderr, BrokenServer(step, *options, stderr=stderr) as server:
        answer = httpx.post(f"{server.url}/v1/completions", json=SHORT, timeout=30)
        assert answer.json()["error"]["code"] == "engine_broken"
        assert server.process.wait(20) == 1
    assert log.read_text().count("the engine is broken") == 1


def test_a_second_signal_ends_the_process_though_a_step_hangs():
    with BrokenServer("hangs", "--shutdown-grace", "60") as server, ThreadPoolExecutor(1) as pool:
        pool.submit(httpx.post, f"{server.url}/v1/completions", json=SHORT, timeout=30)
        until(lambda: gauge(server.url, "llada_requests_running") == 1)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(5) == 128 + signal.SIGINT
