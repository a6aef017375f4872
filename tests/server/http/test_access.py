"""One line in the log for each request, whatever becomes of it."""

import json
import logging
import re
import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from hashlib import sha256

import httpx
import pytest

from server.logs import Fields, JSONFormatter, TextFormatter
from tests.conftest import GOLDEN
from tests.live_server import ForkedServer
from tests.server.conftest import GatedSampler, serving, until
from tests.server.engine.test_giving_up import FailingSampler

TINY = str(GOLDEN / "models" / "tiny-mha")
BODY = {"prompt": [4, 5, 6], "max_tokens": 4, "ignore_eos": True}
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def lines(caplog):
    """The access lines so far, each as its message and its fields."""
    caplog.set_level(logging.INFO, "server")
    return lambda: [
        (record.msg.message, dict(record.msg.values)) for record in caplog.records if isinstance(record.msg, Fields)
    ]


@pytest.fixture(scope="module")
def any_url(tiny):
    """A server for requests of which nothing is left but their line."""
    with serving(tiny, cors_origin=["https://a.example"]) as url:
        yield url


def line_of(lines):
    """The one line that there is to be; it is written a little after the client has its answer."""
    until(lambda: len(lines()) == 1)
    return lines()[0]


@pytest.mark.parametrize("stream", [False, True])
def test_a_generation_leaves_a_line_with_its_usage_and_its_times(any_url, lines, stream):
    body = {**BODY, "n": 2, "temperature": 1, "stream": stream}
    answer = httpx.post(f"{any_url}/v1/completions", json=body, headers={"x-request-id": "mine"}, timeout=30)
    message, fields = line_of(lines)
    assert message == "POST /v1/completions 200"
    times = [fields.pop(name) for name in ("queue_ms", "first_commit_ms", "total_ms")]
    assert times == sorted(times) and times[0] >= 0
    assert fields.pop("answer_id") in answer.text
    assert fields == {
        "request_id": "mine", "finish_reason": "length", "prompt_tokens": 3, "completion_tokens": 8, "steps": 8,
    }  # fmt: skip


def test_a_client_that_leaves_with_its_413_has_had_its_answer(any_url, lines):
    url = httpx.URL(any_url)
    with socket.create_connection((url.host, url.port), timeout=20) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 413"
    message, _ = line_of(lines)
    assert message == "POST unmatched 413"


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/denoise", "/v1/responses"])
def test_a_client_that_leaves_has_a_line_too(demo, demo_tokenizer, lines, path):
    sampler = GatedSampler(demo)
    body = {"input": "Hello"} if path == "/v1/responses" else BODY
    with serving(demo, demo_tokenizer, sampler=sampler) as url:
        sampler.gate.clear()
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url + path, json=body, timeout=0.3)
        message, fields = line_of(lines)
        sampler.gate.set()
    assert message == f"POST {path} 499"
    assert (fields["finish_reason"], fields["completion_tokens"], fields["steps"]) == ("cancelled", 0, 0)
    assert "first_commit_ms" not in fields


def test_a_stream_that_is_resumed_leaves_two_lines_with_one_answer_id(any_url, lines):
    body = {**BODY, "max_tokens": 128}
    with httpx.stream("POST", f"{any_url}/v1/denoise", json=body, timeout=30) as response:
        data = next(line for line in response.iter_lines() if line.startswith("data: "))
    stream_id = json.loads(data.removeprefix("data: "))["id"]
    until(lambda: len(lines()) == 1)
    httpx.get(f"{any_url}/v1/denoise/{stream_id}", timeout=30)
    until(lambda: len(lines()) == 2)
    (first, before), (second, after) = lines()
    assert (first, second) == ("POST /v1/denoise 499", "GET /v1/denoise/{stream_id} 200")
    assert before["answer_id"] == after["answer_id"] == stream_id
    assert (before["finish_reason"], after["finish_reason"]) == ("cancelled", "length")
    assert before["steps"] < after["steps"] == after["completion_tokens"] == 128


@pytest.mark.parametrize(("status", "reason"), [(500, "error"), (504, "timeout")])
def test_a_failed_answer_says_why(tiny, lines, status, reason):
    sampler = GatedSampler(tiny) if reason == "timeout" else FailingSampler(tiny)
    with serving(tiny, sampler=sampler, request_timeout=0.2 if reason == "timeout" else 60) as url:
        if reason == "timeout":
            sampler.gate.clear()
        assert httpx.post(f"{url}/v1/completions", json=BODY, timeout=30).status_code == status
        message, fields = line_of(lines)
        if reason == "timeout":
            sampler.gate.set()
    assert message == f"POST /v1/completions {status}"
    assert fields["finish_reason"] == reason


@pytest.mark.parametrize(
    ("method", "path", "body", "message"),
    [
        ("POST", "/v1/completions", {"prompt": [1], "max_tokens": -1}, "POST /v1/completions 400"),
        ("POST", "/v1/completions", {"prompt": [1] * 999}, "POST /v1/completions 400"),
        ("GET", "/v1/completions", None, "GET /v1/completions 405"),
        ("GET", "/secret-prompt", None, "GET unmatched 404"),
        ("HEAD", "/v1/models", None, "HEAD /v1/models 200"),
        ("GET", "/v1/models/tiny", None, "GET /v1/models/{model_id:path} 200"),
        ("POST", "/v1/score", {"prompt": [1], "completion": [2], "mc_num": 1}, "POST /v1/score 200"),
        ("OPTIONS", "/v1/completions", None, "OPTIONS unmatched 200"),
        ("GET", "/", None, "GET / 200"),
    ],
    ids=str,
)
def test_every_other_request_leaves_a_line_without_what_was_asked(any_url, lines, method, path, body, message):
    headers = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"} if method == "OPTIONS" else {}
    response = httpx.request(method, any_url + path, json=body, headers=headers, timeout=30)
    assert line_of(lines)[0] == message
    assert lines()[0][1]["request_id"] == response.headers["x-request-id"]
    assert "secret-prompt" not in str(lines())


def test_probes_scrapes_and_files_are_logged_at_debug_only(tiny, lines, caplog):
    with serving(tiny, root_path="/llm") as url:
        for path in ("/health", "/llm/health", "/ready", "/ping", "/metrics", "/static/app.js", "/llm/static/app.js"):
            assert httpx.get(url + path).status_code == 200
        assert lines() == []
        caplog.set_level(logging.DEBUG, "server")
        httpx.get(f"{url}/static/app.js")
        # The line of the request before may come only now.
        until(lambda: "GET /static 200" in [message for message, _ in lines()])


def test_a_key_has_a_name_that_does_not_tell_it(tiny, lines, caplog):
    keys = ["k-0123456789abcdef", "another-key-of-mine"]
    with serving(tiny, api_key=keys) as url:
        for key in (*keys, "wrong"):
            httpx.get(f"{url}/v1/models", headers={"Authorization": f"Bearer {key}"})
        until(lambda: len(lines()) == 3)
    assert [fields.get("key") for _, fields in lines()] == [*(sha256(k.encode()).hexdigest()[:8] for k in keys), None]
    assert [message[-3:] for message, _ in lines()] == ["200", "200", "401"]
    assert not any(key in caplog.text for key in (*keys, "wrong"))


@pytest.mark.parametrize(
    ("traceparent", "trace_id"),
    [
        (TRACEPARENT, "0af7651916cd43dd8448eb211c80319c"),
        (TRACEPARENT.replace("00-", "cc-", 1), "0af7651916cd43dd8448eb211c80319c"),
        (TRACEPARENT.replace("00-", "ff-", 1), None),
        ("00-00000000000000000000000000000000-b7ad6b7169203331-01", None),
        ("nonsense", None),
        ("", None),
    ],
)
def test_the_trace_of_a_traceparent_is_named(any_url, lines, traceparent, trace_id):
    httpx.get(f"{any_url}/v1/models", headers={"traceparent": traceparent})
    assert line_of(lines)[1].get("trace_id") == trace_id


def record_of(message):
    return logging.LogRecord("server.http.access", logging.INFO, "", 0, message, (), None)


def test_no_value_can_forge_another_one_in_a_line_of_text():
    values = {
        "request_id": 'a" status=200',
        "user": "b\nINFO forged: line",
        "metadata": "ü",
        "empty": "",
        "total_ms": 1.5,
    }
    line = TextFormatter().format(record_of(Fields("GET / 404", values)))
    assert line.splitlines() == [line]
    assert line.endswith(
        r'GET / 404 request_id="a\" status=200" user="b\nINFO forged: line" metadata="\u00fc" empty="" total_ms=1.5'
    )


@pytest.mark.parametrize("formatter", [TextFormatter(), JSONFormatter()])
def test_the_time_of_a_record_has_its_zone(formatter):
    text = formatter.format(record_of(Fields("GET / 200", {"user": "x", "total_ms": 1.5})))
    moment = json.loads(text)["time"] if text.startswith("{") else text.split()[0]
    assert datetime.fromisoformat(moment).utcoffset() is not None


def test_the_log_of_a_real_server_has_one_line_for_each_request_and_no_other(tmp_path, monkeypatch):
    log = tmp_path / "log"
    with (
        log.open("w") as stderr,
        ForkedServer("--model", TINY, "--log-level", "info", "--log-format", "json", stderr=stderr) as server,
    ):
        with ThreadPoolExecutor(8) as pool:
            posts = [
                pool.submit(
                    httpx.post, f"{server.url}/v1/completions", json=BODY, headers={"x-request-id": str(number)}
                )
                for number in range(16)
            ]
        assert {post.result().status_code for post in posts} == {200}
        httpx.get(f"{server.url}/health")
    records = [json.loads(line) for line in log.read_text().splitlines()]
    access = [record for record in records if record["logger"] == "server.http.access"]
    assert sorted(int(record["request_id"]) for record in access) == list(range(16))
    assert {record["message"] for record in access} == {"POST /v1/completions 200"}
    assert not any(re.search(r"uvicorn", record["logger"]) for record in records)
