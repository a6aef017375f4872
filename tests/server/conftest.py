"""A server in this process: a real uvicorn on a real port, with a model small enough for any test."""

import contextlib
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
import uvicorn

from llada_core.model.architectures.llada.network import LLaDAModelLM
from llada_core.sampling.sampler import Sampler
from llada_core.text.tokenizer import Tokenizer
from server.app import create_app
from server.settings import Settings


@contextlib.contextmanager
def serving(
    model: LLaDAModelLM, tokenizer: Tokenizer | None = None, sampler: Sampler | None = None, **settings: object
) -> Iterator[str]:
    """The base URL of a uvicorn that runs in a thread while the block lasts."""
    app = create_app(Settings(**{"served_model_name": "tiny", **settings}), model, tokenizer, sampler=sampler)
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


@pytest.fixture(scope="module")
def tiny_url(tiny) -> Iterator[str]:
    """A server of the tiny checkpoint, which has no tokenizer."""
    with serving(tiny) as url:
        yield url


@pytest.fixture(scope="module")
def tiny_client(tiny_url) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=tiny_url, timeout=60) as client:
        yield client
