"""A server in this process: a real uvicorn on a real port, with a model small enough for any test."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx
import openai
import pytest
import uvicorn

from llada_core.model.interface import MaskPredictor
from llada_core.sampling.canvas import Canvas
from llada_core.sampling.events import DenoisingStep
from llada_core.sampling.sampler import Sampler
from llada_core.text.tokenizer import Tokenizer
from server.app import create_app
from server.settings import Settings


@contextlib.contextmanager
def serving(
    model: MaskPredictor,
    tokenizer: Tokenizer | None = None,
    sampler: Sampler | None = None,
    decision_temperature: float = 1.0,
    **settings: Any,
) -> Iterator[str]:
    """Run uvicorn in a thread while the block lasts; yields its base URL."""
    app = create_app(
        Settings(**{"served_model_name": "tiny", **settings}),
        model,
        tokenizer,
        decision_temperature=decision_temperature,
        sampler=sampler,
    )
    server = uvicorn.Server(
        uvicorn.Config(
            app, port=0, log_level="error", timeout_graceful_shutdown=1, root_path=settings.get("root_path", "")
        )
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
    assert not thread.is_alive()


class GatedSampler(Sampler):
    """Waits at a gate before each step and records the lengths of the canvases in it."""

    def __init__(self, model: MaskPredictor) -> None:
        super().__init__(model)
        self.gate = threading.Event()
        self.gate.set()
        self.steps: list[list[int]] = []

    def step(self, canvases: Sequence[Canvas]) -> list[DenoisingStep]:
        self.gate.wait(30)
        self.steps.append([len(canvas.tokens) for canvas in canvases])
        return super().step(canvases)


def until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.01)


def gauge(url: str, name: str) -> float:
    for line in httpx.get(f"{url}/metrics").text.splitlines():
        if line.startswith(f"{name} "):
            return float(line.split()[1])
    raise AssertionError(name)


def events_of(response: httpx.Response) -> list[tuple[str | None, Any]]:
    """The name and data of every event of a stream."""
    events = []
    for block in response.text.replace("\r\n", "\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if "data" in fields:
            events.append((fields.get("event"), json.loads(fields["data"])))
    return events


@pytest.fixture(scope="module")
def client(live_server: str) -> Iterator[openai.OpenAI]:
    """The official client, of a server with the demo model."""
    with openai.OpenAI(base_url=f"{live_server}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def http(live_server: str) -> Iterator[httpx.Client]:
    """Plain HTTP to the same server."""
    with httpx.Client(base_url=live_server, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def babbler_url(babbler: MaskPredictor, demo_tokenizer: Tokenizer) -> Iterator[str]:
    with serving(babbler, demo_tokenizer, served_model_name="llada-demo") as url:
        yield url


@pytest.fixture(scope="module")
def babbler_client(babbler_url: str) -> Iterator[openai.OpenAI]:
    """The official client, of a server whose answers are noise."""
    with openai.OpenAI(base_url=f"{babbler_url}/v1", api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def tiny_url(tiny: MaskPredictor) -> Iterator[str]:
    """The base URL of a server with the tiny checkpoint, which has no tokenizer."""
    with serving(tiny) as url:
        yield url


@pytest.fixture(scope="module")
def tiny_client(tiny_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=tiny_url, timeout=60) as client:
        yield client
