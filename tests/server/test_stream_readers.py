"""Streams as the simplest readers see them: each must get the whole answer."""

import json
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import requests

from llada_core.sampling.sampler import Sampler
from tests.server.conftest import serving

QUESTION = [{"role": "user", "content": "Tell me a story about a fox."}]
BODIES = {
    "/v1/chat/completions": {"messages": QUESTION, "max_tokens": 48},
    "/v1/completions": {"prompt": "Once upon a time", "max_tokens": 48},
    "/v1/fim/completions": {"prompt": "Once upon a", "suffix": " there was a fox.", "max_tokens": 4},
}
# Next line, line separator, paragraph separator: `str.splitlines` and with it many readers break at them.
SEPARATORS = "a\u0085b\u2028c\u2029d"


@pytest.fixture(scope="module")
def url(babbler_url) -> str:
    return babbler_url


def data_of(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line.removeprefix("data: "))


def by_urllib(url: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Split the bytes on LF LF, as fifteen-line readers do."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as response:
        events = response.read().split(b"\n\n")
    assert events[-1] == b""
    yield from data_of(event.decode() for event in events)


def by_httpx(url: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    with httpx.stream("POST", url, json=body, timeout=60) as response:
        yield from data_of(response.iter_lines())


def by_requests(url: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    with requests.post(url, json=body, stream=True, timeout=60) as response:
        yield from data_of(line.decode() for line in response.iter_lines())


def text_until_the_end(chunks: Iterator[dict[str, Any]]) -> tuple[str, str]:
    """The text and finish reason of a reader that leaves at the first `finish_reason`, and drops that chunk's text."""
    text = ""
    for chunk in chunks:
        choice = chunk["choices"][0]
        if choice["finish_reason"] is not None:
            return text, choice["finish_reason"]
        text += choice["text"] if "text" in choice else choice["delta"].get("content", "")
    raise AssertionError("no finish_reason")


@pytest.mark.parametrize("route", BODIES)
@pytest.mark.parametrize("reader", [by_urllib, by_httpx, by_requests])
def test_every_reader_gets_the_whole_text_before_the_finish_reason(url, route, reader):
    body = {**BODIES[route], "seed": 3}
    (choice,) = httpx.post(url + route, json=body, timeout=60).json()["choices"]
    plain = choice["text"] if "text" in choice else choice["message"]["content"]
    assert text_until_the_end(reader(url + route, {**body, "stream": True})) == (plain, choice["finish_reason"])
    assert plain


@pytest.mark.parametrize("reader", [by_urllib, by_httpx, by_requests])
def test_line_separators_within_a_text_break_no_reader(url, reader):
    body = {"prompt": SEPARATORS, "max_tokens": 2, "echo": True, "stream": True}
    text, _ = text_until_the_end(reader(f"{url}/v1/completions", body))
    assert text.startswith(SEPARATORS)


@pytest.mark.parametrize("route", ["/v1/denoise", "/v1/responses", "/v1/completions"])
def test_lines_of_every_stream_end_in_lf_only(url, route):
    body = {"input": "Hi."} if route == "/v1/responses" else {"prompt": "Hi.", "max_tokens": 4}
    content = httpx.post(url + route, json={**body, "stream": True}, timeout=60).content
    assert b"\r" not in content
    assert content.endswith(b"\n\n")


def test_usage_is_null_in_every_chunk_but_the_last_where_it_is_included(url):
    body = {"prompt": "Hi.", "max_tokens": 4, "stream": True, "stream_options": {"include_usage": True}}
    *chunks, last = list(by_httpx(f"{url}/v1/completions", body))
    assert all(chunk["usage"] is None for chunk in chunks)
    assert (last["choices"], last["usage"]["prompt_tokens"]) == ([], 2)


class SlowSampler(Sampler):
    def step(self, canvases):
        time.sleep(0.3)
        return super().step(canvases)


def test_a_silent_stream_is_kept_alive_by_comments(monkeypatch, tiny):
    monkeypatch.setattr("server.http.sse.PING_SECONDS", 0.05)
    with serving(tiny, sampler=SlowSampler(tiny)) as url:
        content = httpx.post(f"{url}/v1/denoise", json={"prompt": [5], "max_tokens": 2}, timeout=60).content
    assert b": ping" in content
    assert b"\r" not in content
