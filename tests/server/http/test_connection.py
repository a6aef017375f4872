"""Clients that are slow, too many, or speak no HTTP, at a real server."""

import contextlib
import json
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import GOLDEN
from tests.live_server import ForkedServer
from tests.server.conftest import gauge, until

TINY = str(GOLDEN / "models" / "tiny-mha")
MAX_CONNECTIONS = 8
MEGABYTE = 2**20
LAST = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def server() -> Iterator[ForkedServer]:
    options = {"--model": TINY, "--client-timeout": "1", "--max-connections": str(MAX_CONNECTIONS)}
    with ForkedServer(*(word for option in options.items() for word in option)) as server:
        yield server


@pytest.fixture
def connect(server):
    """Opens connections, and closes them after the test."""
    url = httpx.URL(server.url)
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(socket.create_connection((url.host, url.port), timeout=20))
    until(lambda: httpx.get(f"{server.url}/health").status_code == 200)


def answer_of(connection: socket.socket) -> tuple[int, dict[str, str], dict]:
    """The status, headers and body of the answer with which the server closes the connection."""
    received = b""
    while part := connection.recv(65536):
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.decode().splitlines()
    headers = dict(line.split(": ", 1) for line in lines)
    return int(status.split()[1]), {name.lower(): value for name, value in headers.items()}, json.loads(body)


def error_of(connection: socket.socket) -> tuple[int, str]:
    status, headers, body = answer_of(connection)
    assert headers["x-request-id"] and headers["x-content-type-options"] == "nosniff"
    assert headers["content-type"] == "application/json" and headers["connection"] == "close"
    assert set(body["error"]) == {"message", "type", "param", "code"}
    return status, body["error"]["code"]


def test_a_request_that_does_not_arrive_is_answered_and_closed(connect):
    connections = {}
    for sent in (
        b"",
        b"GET /health HT",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea",
    ):
        connections[sent] = connect()
        connections[sent].sendall(sent)
    first_of_two = connections[sent]
    assert first_of_two.recv(12) == b"HTTP/1.1 200"
    while not first_of_two.recv(65536).endswith(b"}"):
        pass
    for connection in connections.values():
        assert error_of(connection) == (408, "request_timeout")


def test_a_byte_now_and_then_does_not_keep_a_connection(connect):
    connection = connect()
    connection.sendall(b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        for _ in range(100):
            connection.sendall(b" ")
            time.sleep(0.1)
        pytest.fail("the connection is still open")


@pytest.mark.parametrize("after", [b"", b"HEAD /health HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_a_client_that_reads_nothing_is_let_go(server, connect, after):
    connection = connect()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(0.5)
    with contextlib.suppress(TimeoutError):
        for _ in range(100):
            connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" + after)
    # Kept alive, it would be there beside the connection that asks.
    until(lambda: gauge(server.url, "llada_connections") == 1)


def test_a_client_that_reads_slowly_but_always_something_gets_everything(connect):
    connection = connect()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    # More than the kernel takes in at once: the rest waits in the server.
    connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 250 + LAST)
    num_answers, start = 0, time.monotonic()
    while part := connection.recv(65536):
        num_answers += part.count(b"HTTP/1.1 200 OK")
        # For four times as long as a client has that reads nothing.
        time.sleep(0.02 if time.monotonic() < start + 4 else 0)
    # A status line may have been cut in two.
    assert 240 < num_answers <= 251


def test_an_idle_connection_is_kept_for_the_next_request(server):
    with httpx.Client(base_url=server.url) as client:
        assert client.get("/health").status_code == 200
        time.sleep(2.5)
        opened = client._transport._pool.connections
        assert client.get("/health").status_code == 200
        assert client._transport._pool.connections == opened


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
        (b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000, 431),
        (b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nno number\r\n", 400),
    ],
)
def test_what_is_no_http_gets_an_error_of_the_usual_shape(connect, sent, status):
    connection = connect()
    connection.sendall(sent)
    assert error_of(connection) == (status, "invalid_http")


def test_a_long_head_may_arrive_in_parts(connect):
    connection = connect()
    for part in (b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: ", b"x" * 30_000, b"x" * 30_000, b"\r\n\r\n"):
        connection.sendall(part)
        time.sleep(0.1)
    assert connection.recv(12) == b"HTTP/1.1 200"


def test_an_error_in_the_body_of_a_head_request_is_answered_without_a_body(connect):
    connection = connect()
    connection.sendall(b"HEAD /health HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nno number\r\n")
    head, _, body = connection.makefile("rb").read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400") and body == b""


def test_a_websocket_handshake_is_answered_as_the_request_that_it_is(server):
    headers = {"Connection": "Upgrade", "Upgrade": "websocket"}
    assert httpx.get(f"{server.url}/health", headers=headers).status_code == 200


def test_one_connection_too_many_is_told_so_and_places_come_free_again(server, connect):
    held = [connect() for _ in range(MAX_CONNECTIONS)]
    for connection in held:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 200"
    with httpx.Client(base_url=server.url) as client:
        assert client.get("/health").status_code == client.get("/ready").status_code == 200
        refused = client.get("/v1/models")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "too_many_connections")
        assert refused.headers["retry-after"] == "1" and refused.headers["x-request-id"]
        held[0].close()
        # A client that keeps its connections is not kept out with them.
        until(lambda: client.get("/v1/models").status_code == 200)


@pytest.mark.parametrize("size", [5 * MEGABYTE, 40 * MEGABYTE])
def test_a_body_that_is_too_large_is_answered_though_the_client_sends_it_all_first_and_the_connection_closes(
    connect, size
):
    connection = connect()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {size}\r\n\r\n"
    connection.sendall(head.encode())
    for _ in range(size // MEGABYTE):
        connection.sendall(b" " * MEGABYTE)
    assert error_of(connection) == (413, "request_too_large")


def test_a_body_without_a_length_is_cut_at_the_limit_too(connect):
    connection = connect()
    connection.sendall(b"POST /v1/denoise HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(6):
        connection.sendall(f"{MEGABYTE:x}\r\n".encode() + b" " * MEGABYTE + b"\r\n")
    connection.sendall(b"0\r\n\r\n")
    assert error_of(connection) == (413, "request_too_large")


def test_a_server_that_ends_does_not_wait_for_bodies_and_logs_nothing_of_them(tmp_path):
    with (
        (tmp_path / "log").open("w") as stderr,
        ForkedServer("--model", TINY, "--log-level", "error", stderr=stderr) as server,
    ):
        url = httpx.URL(server.url)
        with socket.create_connection((url.host, url.port), timeout=20) as connection:
            connection.sendall(b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
            until(lambda: gauge(server.url, "llada_http_requests_in_flight") == 2)
            server.process.terminate()
            assert error_of(connection) == (503, "shutting_down")
        assert server.process.wait(20) == 0
    assert (tmp_path / "log").read_text() == ""
